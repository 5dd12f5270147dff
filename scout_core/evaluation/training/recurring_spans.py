"""Questions made of plain text: a sentence with a blank, whose filling stands in the rest.

Owns the choice of spans and sentences. A name or number that occurs in two sentences of a passage
makes a question: one sentence leaves the passage, its span becomes a blank, and the answer is read
off the sentence that stayed (recurring span selection, Ram et al. 2021, "Splinter"). Knows no
tokens and no model.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from scout_core.evaluation.dataset import Example

BLANK = "____"
SOURCE = "recurring_span"
MOST_PER_PASSAGE = 4
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"'(])")
_SPAN = re.compile(
    r"[A-Z][\w'’-]+(?: (?:of|the|de|von|van|and) (?=[A-Z])|[ -](?=[A-Z]))?"
    r"(?:(?<=[ -])[A-Z][\w'’-]*(?: (?:of|the|de|von|van|and) (?=[A-Z])|[ -](?=[A-Z]))?)*"
    r"|\b\d[\d,.]*\d(?: (?:million|billion|percent|km|miles))?\b"
)
_COMMON = frozenset(
    [
        "The",
        "A",
        "An",
        "In",
        "It",
        "He",
        "She",
        "They",
        "This",
        "That",
        "These",
        "Those",
        "His",
        "Her",
        "Its",
        "Their",
        "On",
        "At",
        "By",
        "For",
        "From",
        "With",
        "As",
        "After",
        "Before",
        "During",
        "When",
        "While",
        "If",
        "But",
        "And",
        "Or",
        "However",
        "Although",
        "Since",
        "Also",
        "There",
        "One",
        "Some",
        "Many",
        "Most",
        "Document",
        "Title",
        "Not",
        "To",
        "Of",
        "We",
        "You",
        "I",
        "Our",
        "My",
        "Other",
        "Such",
        "Both",
        "Each",
        "First",
        "Second",
        "Two",
        "Three",
    ]
)
"""Words that a capital letter does not make a name of."""


def _spans(sentence: str) -> list[str]:
    """Names and numbers of a sentence, without the capital that only begins it."""
    found: list[str] = []
    for match in _SPAN.finditer(sentence):
        words = match.group().split(" ")
        while words and words[0] in _COMMON:
            words = words[1:]
        text = " ".join(words).strip(" .,-")
        if len(text) >= 3:
            found.append(text)
    return found


def _stands_in(span: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(span)}(?!\w)", text) is not None


def questions_of(passage: str, group: str, generator: random.Random) -> list[Example]:
    """Up to ``MOST_PER_PASSAGE`` questions about one passage."""
    sentences = [part for part in _SENTENCE.split(passage.replace("\n", " ")) if part.strip()]
    found: list[Example] = []
    taken: set[str] = set()
    order = list(range(len(sentences)))
    generator.shuffle(order)
    for place in order:
        asked = sentences[place]
        if not 5 <= len(asked.split()) <= 45:
            continue
        rest = " ".join(sentences[:place] + sentences[place + 1 :])
        spans = [
            span for span in _spans(asked) if span.lower() not in taken and _stands_in(span, rest)
        ]
        if not spans:
            continue
        span = max(spans, key=len) if generator.random() < 0.5 else generator.choice(spans)
        taken.add(span.lower())
        question = re.sub(rf"(?<!\w){re.escape(span)}(?!\w)", BLANK, asked)
        name = f"{group}:{place}"
        found.append(Example(rest, question.strip(), (span,), group, SOURCE, name))
        if len(found) == MOST_PER_PASSAGE:
            break
    return found


def recurring_span_examples(
    passages: Sequence[tuple[str, str]], count: int, seed: int
) -> list[Example]:
    """``count`` questions (fewer where the text gives fewer) about ``(group, passage)`` pairs.

    Two neighbouring passages are joined where one alone is short, so that spans recur.
    """
    generator = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    out: list[Example] = []
    shuffled = list(passages)
    generator.shuffle(shuffled)
    for group, passage in shuffled:
        out += questions_of(passage, group, generator)
        if len(out) >= count:
            break
    return out[:count]
