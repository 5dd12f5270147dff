"""What the teacher is asked to do: read, write a passage, write a question. Prompts and parsing.

Owns the three tasks as lessons and prompts. Knows the tokenizer through ``Prompter``; knows no
weights and no files.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.metrics import UNANSWERABLE
from scout_core.evaluation.training.prompts import Prompter
from scout_core.evaluation.training.sampling import Prompt
from scout_core.evaluation.training.synthetic import parsed, written_text
from scout_core.evaluation.training.teacher import Lesson

STYLES: Final = {"squad": "as in a reading test", "nq": "as people type into a search box"}
"""Of questions, and the collections whose training rows show them."""
KINDS: Final = {
    "squad": "a paragraph of an encyclopedia article",
    "nq": "a few sentences on a topic that people search for",
    "wiki": "the beginning of an encyclopedia article",
}
"""Of passages; each begins with a line that holds its title."""
FEWEST_PASSAGE_CHARACTERS: Final = 150

Passage = tuple[str, str]
"""Kind and text."""


def passage_prefix(prompter: Prompter, passage: str) -> list[int]:
    """What reading and question writing begin with."""
    return [*prompter.head(), *prompter.ids(passage)]


def reading_prompt(prompter: Prompter, passage: str, question: str) -> Prompt:
    return Prompt(passage_prefix(prompter, passage), prompter.tail(question))


def question_tail(prompter: Prompter, style: str) -> list[int]:
    wish = f"\n\nWrite a question about the passage, {STYLES[style]}. Give the answer first."
    return prompter.ids(f"{wish}<|im_end|>\n<|im_start|>assistant\n")


def passage_prompt(prompter: Prompter, kind: str) -> list[int]:
    return prompter.ids(
        f"<|im_start|>user\nTitle and text of {KINDS[kind]}.<|im_end|>\n<|im_start|>assistant\n"
    )


def style_of(example: Example) -> str:
    """The collection that a training row is from."""
    return example.group.split(":", 1)[0]


def lessons(
    prompter: Prompter, rows: Sequence[Example], passages: Sequence[Passage], seed: int
) -> list[Lesson]:
    """Training rows as reading and writing lessons (twice each), and passages once."""
    found: list[Lesson] = []
    for row in rows:
        target = row.answers[0] if row.answers else UNANSWERABLE
        prefix = passage_prefix(prompter, row.context)
        reading = [*prefix, *prompter.tail(row.question)]
        found += [Lesson(reading, prompter.answer(target))] * 2
        if row.answers:
            writing = [*prefix, *question_tail(prompter, style_of(row))]
            wanted = prompter.answer(written_text(target, row.question))
            found += [Lesson(writing, wanted)] * 2
    for kind, text in passages:
        found.append(Lesson(passage_prompt(prompter, kind), prompter.answer(text)))
    random.Random(seed).shuffle(found)  # noqa: S311 - a reproducible draw, not a secret
    return found


def parsed_passage(kind: str, text: str) -> Passage | None:
    """A passage that was written to its end, without its title but for those of a search."""
    title, _, body = text.strip().partition("\n")
    body = body.strip()
    if not title or len(body) < FEWEST_PASSAGE_CHARACTERS or body[-1] not in '.!?")':
        return None
    return (kind, f"{title}\n{body}" if kind == "nq" else body)


def parsed_question(style: str, passage: str, text: str, name: str) -> Example | None:
    """A question whose answer is short and in the passage and not in the question."""
    pair = parsed(passage, text)
    if pair is None:
        return None
    answer, question = pair
    return Example(passage, question, (answer,), f"taught:{name}", style, name)
