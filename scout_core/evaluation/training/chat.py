"""Ordinary chat that the cloud adapter must leave alone.

Owns the prompts, the base model's own replies to them, its hidden states as a teacher, and the
measure of drift: mean KL and top-1 agreement with the base model on held-out replies.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.nn import functional

from scout_core.evaluation.quality_answers import Model, padded
from scout_core.evaluation.quality_decoder import Pass, hidden_states
from scout_core.evaluation.training.cloud_rows import Row
from scout_core.evaluation.training.prompts import Prompter
from scout_core.evaluation.training.sampling import Draw, sampled

REPLY_TOKENS = 80
_TOPICS = (
    "the sea",
    "a small garden",
    "learning to cook",
    "public libraries",
    "bicycles",
    "winter",
    "the Roman empire",
    "music practice",
    "computer programs",
    "friendship",
    "a long train ride",
    "photosynthesis",
    "saving money",
    "the moon",
    "a job interview",
    "dogs",
    "tea",
    "volcanoes",
)
_FORMS = (
    "Write a short poem about {}.",
    "Explain {} to a child.",
    "Give me three tips about {}.",
    "Tell me something surprising about {}.",
    "Write a friendly email that mentions {}.",
    "What are the advantages and disadvantages of {}?",
    "Summarise what you know about {} in two sentences.",
    "Write a story of five sentences about {}.",
)
_SINGLE = (
    "Hello! How are you today?",
    "Who are you?",
    "Thank you, that was helpful.",
    "Write a Python function that adds two numbers.",
    "Translate 'good morning' into French.",
    "What is 17 plus 25?",
    "Correct this sentence: She go to school yesterday.",
    "List the days of the week.",
    "Can you help me plan a birthday party?",
    "What should I cook with eggs and tomatoes?",
)


def chat_messages(folder: Path, seed: int) -> list[str]:
    """User messages: our own, and questions of the closed-book task sets."""
    ours = [form.format(topic) for form in _FORMS for topic in _TOPICS] + list(_SINGLE) * 3
    asked: list[str] = []
    for name in ("nq_open_closedbook", "triviaqa_closedbook", "gsm8k", "mmlu"):
        lines = (folder / "tasks" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        asked += [str(json.loads(line)["question"]) for line in lines if line.strip()]
    generator = random.Random(seed)  # noqa: S311 - a reproducible draw, not a secret
    messages = ours + generator.sample([text for text in asked if len(text) < 500], 360)
    generator.shuffle(messages)
    return messages


@torch.no_grad()
def chat_rows(model: Model, prompter: Prompter, messages: Sequence[str], seed: int) -> list[Row]:
    """The base model's sampled replies, with its hidden states to hold on to."""
    prompts = [prompter.chat(message) for message in messages]
    draw = Draw(temperature=0.8, top_p=0.95, max_new=REPLY_TOKENS)
    replies = sampled(model, prompts, draw, seed=seed, token_budget=300_000)
    stop = min(model.stop_tokens)
    rows: list[Row] = []
    for start in range(0, len(prompts), 64):
        group = list(zip(prompts[start : start + 64], replies[start : start + 64], strict=True))
        sequences = [[*prompt, *reply, stop] for prompt, reply in group]
        ids, _ = padded(sequences, model.device)
        places = torch.arange(ids.shape[1], device=model.device)[None].expand_as(ids)
        out, _ = hidden_states(
            model.weights, model.shape, model.weights.embedding[ids], Pass(places)
        )
        norm = model.weights.final_norm
        out = functional.rms_norm(out, (out.shape[-1],), norm, model.shape.norm_epsilon)
        for index, (sequence, (prompt, _)) in enumerate(zip(sequences, group, strict=True)):
            held = out[index, len(prompt) - 1 : len(sequence) - 1].clone()
            rows.append(Row(sequence, list(range(len(sequence))), len(prompt), held))
    return rows


@dataclass(frozen=True, slots=True)
class Drift:
    """How far an adapted model is from the base model on chat replies."""

    kl_nats: float
    top1_agreement: float
    tokens: int


@torch.no_grad()
def chat_drift(model: Model, rows: Sequence[Row]) -> Drift:
    """Mean KL(base || model) per reply token and how often the likeliest tokens agree."""
    total, agreed, count = 0.0, 0, 0
    for row in rows:
        if row.teacher is None:
            continue
        ids = torch.tensor([row.ids], device=model.device)
        places = torch.tensor([row.positions], device=model.device)
        out, _ = hidden_states(
            model.weights, model.shape, model.weights.embedding[ids], Pass(places)
        )
        held = out[0, row.target_from - 1 : len(row.ids) - 1]
        norm = model.weights.final_norm
        held = functional.rms_norm(held, (held.shape[-1],), norm, model.shape.norm_epsilon)
        student = functional.linear(held, model.weights.output).float().log_softmax(-1)
        teacher = functional.linear(row.teacher, model.weights.output).float().log_softmax(-1)
        total += float((teacher.exp() * (teacher - student)).sum())
        agreed += int((student.argmax(-1) == teacher.argmax(-1)).sum())
        count += len(held)
    return Drift(total / max(count, 1), agreed / max(count, 1), count)
