"""The teacher: what it is asked and what is taken from it; its training and its batches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM

from scout_core.evaluation.dataset import Example
from scout_core.evaluation.quality_answers import Model
from scout_core.evaluation.training.prompts import Prompter
from scout_core.evaluation.training.sampling import Prompt, greedy
from scout_core.evaluation.training.teacher import (
    Lesson,
    LowRankLinear,
    load_teacher,
    train_teacher,
)
from scout_core.evaluation.training.teacher_questions import (
    ROUND,
    Author,
    questions_about,
    rounds,
)
from scout_core.evaluation.training.teacher_tasks import (
    STYLES,
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


def spelling_prompter() -> Prompter:
    """Cuts text at spaces and line ends, which are tokens too, so that nothing is lost."""
    words = (
        "[UNK] <|im_end|> <|im_start|> system user assistant Passage: Question: Answer: Answer "
        "Write Give It stands by the sea . on a hill where does it stand short phrase from with"
    )
    unknown, *known = dict.fromkeys(words.split())
    vocabulary = {word: index for index, word in enumerate((unknown, *known, " ", "\n"))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=unknown))
    pattern = Regex(r"<\|im_end\|>|<\|im_start\|>|[ \n]")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(pattern, "isolated")
    tokenizer.decoder = decoders.Fuse()
    return Prompter(tokenizer)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    made = tiny_model(32, layers=1)
    made.model.embed_tokens.weight.data.mul_(25)  # so that its logits can differ
    return made


def tiny_model(vocabulary: int, layers: int) -> Any:
    config = Qwen2Config(
        vocab_size=vocabulary,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    made: Any = Qwen2ForCausalLM(config)
    return made.requires_grad_(False).eval()


def learn_by_heart(model: Any, taught: Sequence[Lesson]) -> None:
    """All of the model's weights, which low-rank updates of random ones cannot do."""
    longest = max(len(lesson.prompt) + len(lesson.wanted) for lesson in taught)
    ids = torch.full((len(taught), longest), STOP)
    labels = torch.full_like(ids, -100)
    for place, lesson in enumerate(taught):
        whole = torch.tensor([*lesson.prompt, *lesson.wanted])
        ids[place, : len(whole)] = whole
        labels[place, len(lesson.prompt) : len(whole)] = torch.tensor(lesson.wanted)
    optimiser = torch.optim.AdamW(model.requires_grad_(True).parameters(), lr=5e-3)
    for _ in range(300):
        loss = model(input_ids=ids, labels=labels).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    model.requires_grad_(False)


def saved_and_loaded(model: Any, folder: Path) -> Model:
    model.save_pretrained(folder)
    return load_teacher(folder, torch.device("cpu"), STOP)


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
    taught = [Lesson([19, 20 + number], [5 + number, STOP]) for number in range(3)]
    figures = train_teacher(model, taught * 500, token_budget=24, learning_rate=2e-2, seconds=60.0)
    assert figures["losses"][-1] < 0.2 * figures["losses"][0]
    assert not any(isinstance(part, LowRankLinear) for part in model.modules())
    reader = saved_and_loaded(model, tmp_path)
    prompts = [Prompt(lesson.prompt[:1], lesson.prompt[1:]) for lesson in taught]
    assert greedy(reader, prompts, max_new=4, token_budget=100) == [[5], [6], [7]]


def test_what_the_teacher_learnt_to_ask_is_written_and_kept(tmp_path: Path) -> None:
    prompter = spelling_prompter()
    texts = {"It stands by the sea .": "sea", "It stands on a hill .": "hill"}
    rows = [
        Example(text, "where does it stand", (answer,), f"{style}:Castle", "x", "1")
        for text, answer in texts.items()
        for style in STYLES
    ]
    torch.manual_seed(0)
    model = tiny_model(prompter.tokenizer.get_vocab_size(), layers=2)
    learn_by_heart(model, lessons(prompter, rows, [], 0))
    reader = saved_and_loaded(model, tmp_path)
    author = Author(reader, prompter, torch.Generator().manual_seed(0), 2_000)
    passages = [("own", text) for text in texts]
    written, kept = questions_about(author, passages, random.Random(0), 1)
    assert written == len(kept) == 2
    asked = {(e.context, e.question, e.answers) for e in kept}
    assert asked == {(text, "where does it stand", (answer,)) for text, answer in texts.items()}


def test_rounds_are_of_given_passages_first() -> None:
    given = [("wiki", str(number)) for number in range(ROUND + 2)]
    author: Any = None  # not asked to write before they are used up
    found = rounds(author, given, random.Random(0))
    first, second = next(found), next(found)
    assert (len(first), len(second)) == (ROUND, 2)
    assert sorted((*first, *second)) == sorted(given)


def test_the_decoder_continues_as_the_trained_model_does(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = tiny_model(32, layers=2)
    model.model.embed_tokens.weight.data.mul_(25)
    for name, tensor in model.named_parameters():
        if name.endswith(".bias"):
            torch.nn.init.normal_(tensor)
    reader = saved_and_loaded(model, tmp_path)
    prompts = [[3, 8], [4, 7, 9, 11, 12], [5, 6, 8]]
    theirs: list[list[int]] = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        made = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=6,
            do_sample=False,
            eos_token_id=STOP,
            pad_token_id=STOP,
        )[0, len(prompt) :].tolist()
        theirs.append([token for token in made if token != STOP])
    assert len({tuple(answer) for answer in theirs}) > 1
    cut = [Prompt(prompt[:-1], prompt[-1:]) for prompt in prompts]
    assert greedy(reader, cut, max_new=6, token_budget=1000) == theirs
    assert greedy(reader, cut, max_new=6, token_budget=1) == theirs


def test_a_loss_that_is_not_finite_stops_the_run(model: Any) -> None:
    model.model.norm.weight.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="not finite"):
        train_teacher(model, [Lesson([2], [3])], token_budget=9, learning_rate=1e-3, seconds=60.0)
