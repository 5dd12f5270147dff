"""The teacher: what it is asked and what is taken from it; its training and its batches."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.training.prompts import Prompter
from scout_core.evaluation.training.teacher import (
    Lesson,
    LowRankLinear,
    continued,
    load_teacher,
    train_teacher,
)
from scout_core.evaluation.training.teacher_tasks import (
    lessons,
    parsed_passage,
    parsed_question,
    style_of,
)

BODY = "It stands by the sea and has done so for a very long time, as people there say. " * 3
STOP = 1


@pytest.fixture
def prompter() -> Prompter:
    words = ["[UNK]", "<|im_end|>", "Answer", "Question", "sea", "unanswerable", "where"]
    vocabulary = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=words[0]))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Prompter(tokenizer)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=32,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    made: Any = Qwen2ForCausalLM(config)
    made.model.embed_tokens.weight.data.mul_(25)  # so that its logits can differ
    return made.requires_grad_(False).eval()


def row(answers: tuple[str, ...], group: str = "squad:Castle") -> Example:
    return Example("It stands by the sea.", "where does it stand now", answers, group, "x", "1")


def test_rows_become_reading_and_writing_lessons_and_refused_ones_only_reading(
    prompter: Prompter,
) -> None:
    answered = lessons(prompter, [row(("sea",))], [], 0)
    refused = lessons(prompter, [row(())], [("wiki", "A\nB")], 0)
    assert len(answered) == 4
    assert len(refused) == 3
    targets = [prompter.text(lesson.wanted) for lesson in refused]
    assert sum("unanswerable" in target for target in targets) == 2
    assert all(lesson.wanted[-1] == STOP for lesson in (*answered, *refused))


def test_the_style_is_the_collection() -> None:
    assert style_of(row(("sea",), "nq:Castle")) == "nq"


@pytest.mark.parametrize(
    ("kind", "expected"), [("wiki", BODY.strip()), ("nq", f"Castle\n{BODY.strip()}")]
)
def test_a_passage_keeps_its_title_only_in_a_search(kind: str, expected: str) -> None:
    assert parsed_passage(kind, f"Castle\n{BODY}") == (kind, expected)


@pytest.mark.parametrize(
    "text",
    ["Castle", "Castle\nToo short.", f"Castle\n{BODY.strip()} and then it was", f"\n{BODY}"],
    ids=["title alone", "short", "cut off", "no title: the body is taken for one"],
)
def test_passages_that_are_not_whole_are_left_out(text: str) -> None:
    assert parsed_passage("wiki", text) is None


def test_a_question_is_parsed() -> None:
    found = parsed_question(
        "nq", "It stands by the sea.", "Answer: the sea\nQuestion: where does it stand", "7"
    )
    assert found == Example(
        "It stands by the sea.", "where does it stand", ("the sea",), "taught:7", "nq", "7"
    )


@pytest.mark.parametrize(
    "text",
    [
        "the sea",
        "Answer: the sea",
        "Question: where does it stand\nAnswer: the sea",
        "Answer: the lake\nQuestion: where does it stand",
        "Answer: the sea\nQuestion: why though",
        "Answer: the sea\nQuestion: does it stand by the sea",
        "Answer: It stands by the sea and more and more words\nQuestion: where does it stand",
    ],
)
def test_questions_that_cannot_be_used_are_left_out(text: str) -> None:
    passage = "It stands by the sea. It stands by the sea and more and more words"
    assert parsed_question("squad", passage, text, "7") is None


def test_a_low_rank_update_merged_is_the_same_layer() -> None:
    torch.manual_seed(0)
    layer = LowRankLinear(torch.nn.Linear(24, 20))
    torch.nn.init.normal_(layer.up)
    x = torch.randn(5, 24)
    with torch.no_grad():
        expected = layer(x)
        torch.testing.assert_close(layer.merged()(x), expected, atol=1e-5, rtol=1e-5)


def test_training_teaches_and_leaves_a_plain_model(model: Any, tmp_path: Path) -> None:
    taught = [Lesson([20 + number], [5 + number, STOP]) for number in range(3)]
    figures = train_teacher(model, taught * 250, token_budget=18, learning_rate=2e-2, seconds=60.0)
    assert figures["losses"][-1] < 0.2 * figures["losses"][0]
    assert not any(isinstance(part, LowRankLinear) for part in model.modules())
    prompts = [lesson.prompt for lesson in taught]
    assert continued(model, prompts, None, STOP, most=4, tokens=100) == [
        [5 + number] for number in range(3)
    ]
    model.save_pretrained(tmp_path)
    again = load_teacher(tmp_path, torch.device("cpu"))
    assert continued(again, prompts[:1], None, STOP, most=4, tokens=100) == [[5]]


def test_a_batch_of_unequal_prompts_continues_each_as_alone(model: Any) -> None:
    prompts = [[3], [4, 7, 9, 11, 12], [5, 6, 8]]
    alone = [continued(model, [p], None, STOP, most=6, tokens=1)[0] for p in prompts]
    assert continued(model, prompts, None, STOP, most=6, tokens=1000) == alone


def test_a_loss_that_is_not_finite_stops_the_run(model: Any) -> None:
    model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        train_teacher(model, [Lesson([2], [3])], token_budget=9, learning_rate=1e-3, seconds=60.0)
