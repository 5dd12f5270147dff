"""Questions the model writes itself, kept when the cloud model answers them as intended.

Owns the two steps of Alberti et al. 2019 (synthetic QA by round-trip consistency): train the base
model to write ``answer / question`` for a passage, sample, then keep what the first cloud adapter
answers alike. Passages never come from held-out articles (``corpus.writing_passages``).
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.metrics import answer_f1, normalised
from scout_core.evaluation.quality_answers import Model
from scout_core.evaluation.training.cloud_rows import Row
from scout_core.evaluation.training.corpus import Item
from scout_core.evaluation.training.prompts import Prompter
from scout_core.evaluation.training.sampling import Draw, Prompt, greedy, sampled

KEPT_F1 = 0.7
"""Least agreement between the intended answer and the model's."""
MOST_ANSWER_WORDS = 8
FEWEST_QUESTION_WORDS = 4
_COPIES = {"wiki": 7, "squad": 4, "nq": 4, "covid": 3, "prose": 2}
"""Samples per passage; SQuAD passages are already listed four times."""


def writing_row(item: Item, prompter: Prompter, _: random.Random) -> Row:
    """Train to write ``Answer: …`` then ``Question: …`` after the passage."""
    prefix = [*prompter.head(), *item.context, *prompter.writing_tail()]
    wanted = prompter.answer(written_text(item.target, item.question))
    ids = [*prefix, *wanted]
    return Row(ids, list(range(len(ids))), len(prefix))


def written_text(answer: str, question: str) -> str:
    """What a writer is trained to write after a passage, and what ``parsed`` reads."""
    return f"Answer: {answer}\nQuestion: {question}"


def parsed(passage: str, text: str) -> tuple[str, str] | None:
    """Answer and question; None unless the answer is short, in the passage, not in the question."""
    lines = text.strip().split("\n")
    if len(lines) != 2 or not lines[0].startswith("Answer: "):
        return None
    if not lines[1].startswith("Question: "):
        return None
    answer, question = lines[0][8:].strip(), lines[1][10:].strip()
    if not answer or answer not in passage or len(answer.split()) > MOST_ANSWER_WORDS:
        return None
    if len(question.split()) < FEWEST_QUESTION_WORDS or normalised(answer) in normalised(question):
        return None
    return answer, question


def written(
    model: Model, prompter: Prompter, passages: Sequence[tuple[str, str]], seed: int
) -> list[Example]:
    """Sampled questions that parse and whose answer is in the passage."""
    many = [pair for pair in passages for _ in range(_COPIES[pair[0]])]
    head, tail = prompter.head(), prompter.writing_tail()
    cache: dict[str, list[int]] = {}
    for _, passage in passages:
        if passage not in cache:
            cache[passage] = prompter.ids(passage)
    many = [(source, passage) for source, passage in many if len(cache[passage]) < 420]
    prompts = [[*head, *cache[passage], *tail] for _, passage in many]
    draw = Draw(temperature=0.9, top_p=0.95, max_new=56)
    texts = sampled(model, prompts, draw, seed=seed, token_budget=400_000)
    found: dict[tuple[str, str], Example] = {}
    for number, ((source, passage), ids) in enumerate(zip(many, texts, strict=True)):
        pair = parsed(passage, prompter.text(ids))
        if pair is not None:
            answer, question = pair
            group, name = f"synthetic:{number}", f"s{number}"
            example = Example(passage, question, (answer,), group, source, name)
            found.setdefault((passage, normalised(question)), example)
    return list(found.values())


def consistent(model: Model, prompter: Prompter, examples: Sequence[Example]) -> list[Example]:
    """Examples that ``model`` answers as intended."""
    head = prompter.head()
    prompts = [
        Prompt([*head, *prompter.ids(example.context)], prompter.tail(example.question))
        for example in examples
    ]
    answers = greedy(model, prompts, max_new=20, token_budget=400_000)
    return [
        example
        for example, ids in zip(examples, answers, strict=True)
        if answer_f1(prompter.text(ids), example.answers) >= KEPT_F1
    ]
