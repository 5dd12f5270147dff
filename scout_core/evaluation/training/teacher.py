"""A larger model that reads, writes passages and writes questions for the small pair to learn from.

Owns the teacher's weights: a Qwen2 GGUF file to a transformers model, low-rank training of all its
linear layers, and the trained weights as a batched decoder. Knows neither data nor prompts. The
model card says where the file is from.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoTokenizer, Qwen2ForCausalLM

from scout_core.engine.gguf_conversion import LAYER_NAMES, TOP_NAMES
from scout_core.evaluation.quality_answers import Model
from scout_core.evaluation.quality_batches import by_length
from scout_core.evaluation.quality_decoder import BIASES, NORMS, PROJECTIONS, DecoderWeights
from scout_core.evaluation.training.base_weights import decoder_shape

RANK: Final = 16
ALPHA: Final = 32.0
WARM_UP: Final = 0.05
LORA_DEVIATION: Final = 0.01
EMBEDDING: Final = "model.embed_tokens.weight"


@dataclass(frozen=True, slots=True)
class Lesson:
    """A prompt and what should follow it, in token ids."""

    prompt: list[int]
    wanted: list[int]


class LowRankLinear(nn.Module):
    """A frozen linear layer and a trained low-rank update of it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.linear = linear
        device = linear.weight.device
        self.down = nn.Parameter(
            LORA_DEVIATION * torch.randn(RANK, linear.in_features, device=device)
        )
        self.up = nn.Parameter(torch.zeros(linear.out_features, RANK, device=device))

    def forward(self, x: Tensor) -> Tensor:
        update = (x @ self.down.to(x.dtype).T) @ self.up.to(x.dtype).T
        return self.linear(x) + update * (ALPHA / RANK)

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The layer with its update inside."""
        update = (self.up @ self.down) * (ALPHA / RANK)
        weight = self.linear.weight
        weight.copy_((weight.float() + update).to(weight.dtype))
        return self.linear


def read_teacher(gguf: Path, device: torch.device) -> Any:
    """The GGUF file's model, bfloat16 on a GPU and float32 on a CPU, parameters frozen."""
    config: Any = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name)
    config.tie_word_embeddings = True
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    state: dict[str, Tensor] = {}
    for tensor in GGUFReader(gguf).tensors:
        name = _name(tensor.name)
        if name == EMBEDDING and name in state:
            continue
        if name == "lm_head.weight":  # the same matrix in a finer format
            name = EMBEDDING
        values = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
        state[name] = torch.from_numpy(np.array(values)).to(dtype)
    architecture: Any = Qwen2ForCausalLM
    model = architecture.from_pretrained(None, config=config, state_dict=state, dtype=dtype)
    return model.to(device).requires_grad_(False).eval()


def _name(gguf_name: str) -> str:
    match gguf_name.split("."):
        case [top, "weight"]:
            return f"{TOP_NAMES[top]}.weight"
        case ["blk", layer, part, kind]:
            return f"model.layers.{layer}.{LAYER_NAMES[part]}.{kind}"
        case _:
            raise ValueError(f"unknown tensor {gguf_name}")


def save_teacher(model: Any, gguf: Path, folder: Path) -> None:
    """Weights, configuration and tokenizer, for ``load_teacher``."""
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)


def load_teacher(folder: Path, device: torch.device, stop: int) -> Model:
    """What ``save_teacher`` kept, as a batched decoder that stops at the token ``stop``."""
    state = load_file(folder / "model.safetensors", device=str(device))
    shape = decoder_shape(folder)
    names = {name: f"{name}.weight" for name in (*PROJECTIONS, *NORMS)} | {b: b for b in BIASES}
    layer = {
        name: tuple(state[f"model.layers.{i}.{stored}"] for i in range(shape.layers))
        for name, stored in names.items()
    }
    embedding = state[EMBEDDING]
    weights = DecoderWeights(layer, embedding, embedding, state["model.norm.weight"])
    return Model(weights, shape, frozenset((stop,)))


def train_teacher(
    model: Any,
    lessons: Sequence[Lesson],
    *,
    token_budget: int,
    learning_rate: float,
    seconds: float,
) -> dict[str, Any]:
    """Trains low-rank updates on all lessons once, in random order, and merges them.

    Attention is the plain one meanwhile: with the fused one, cuDNN's among its kernels, a run on an
    H200 had no finite loss.

    Returns:
        Steps, seconds and the loss of each tenth of the run.
    """
    model.set_attn_implementation("eager")
    layers = _with_low_rank(model)
    parameters = [p for layer in layers for p in (layer.down, layer.up)]
    optimiser = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.0)
    batches = list(_batches(lessons, token_budget))
    started, losses = time.perf_counter(), list[Tensor]()
    for step, batch in enumerate(batches):
        share = max(step / len(batches), (time.perf_counter() - started) / seconds)
        if share >= 1:
            break
        rate = learning_rate * min(1.0, (step + 1) / (WARM_UP * len(batches)))
        for group in optimiser.param_groups:
            group["lr"] = rate * 0.5 * (1 + float(np.cos(np.pi * share)))
        loss = _loss(model, batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        losses.append(loss.detach())
    _merge(model)
    model.set_attn_implementation("sdpa")
    if not np.isfinite([float(value) for value in losses]).all():
        raise FloatingPointError("the teacher's loss is not finite")
    return {
        "steps": len(losses),
        "of": len(batches),
        "seconds": time.perf_counter() - started,
        "losses": _tenths(losses),
    }


def _tenths(losses: Sequence[Tensor]) -> list[float]:
    parts = np.array_split(np.array([float(value) for value in losses]), 10)
    return [round(float(part.mean()), 4) for part in parts if part.size]


def _with_low_rank(model: Any) -> list[LowRankLinear]:
    layers: list[LowRankLinear] = []
    for block in model.model.layers:
        for part in (block.self_attn, block.mlp):
            for name, child in list(part.named_children()):
                if isinstance(child, nn.Linear):
                    layers.append(LowRankLinear(child))
                    setattr(part, name, layers[-1])
    return layers


def _merge(model: Any) -> None:
    for block in model.model.layers:
        for part in (block.self_attn, block.mlp):
            for name, child in list(part.named_children()):
                if isinstance(child, LowRankLinear):
                    setattr(part, name, child.merged())


def _batches(lessons: Sequence[Lesson], token_budget: int) -> Iterator[list[Lesson]]:
    """Lessons of like length together, batches in random order."""
    lengths = [len(lesson.prompt) + len(lesson.wanted) for lesson in lessons]
    cut = by_length(lengths, token_budget)
    for index in torch.randperm(len(cut), generator=torch.Generator().manual_seed(0)).tolist():
        yield [lessons[i] for i in cut[index]]


def _loss(model: Any, batch: Sequence[Lesson]) -> Tensor:
    """Mean cross-entropy of what is wanted."""
    device = model.device
    longest = max(len(lesson.prompt) + len(lesson.wanted) for lesson in batch)
    ids = torch.zeros(len(batch), longest, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    rows: list[int] = []
    places: list[int] = []
    targets: list[int] = []
    for row, lesson in enumerate(batch):
        whole = [*lesson.prompt, *lesson.wanted]
        ids[row, : len(whole)] = torch.tensor(whole)
        mask[row, : len(whole)] = 1
        for offset, target in enumerate(lesson.wanted):
            rows.append(row)
            places.append(len(lesson.prompt) + offset - 1)
            targets.append(target)
    hidden = model.model(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
    logits = model.lm_head(hidden[torch.tensor(rows), torch.tensor(places)]).float()
    return nn.functional.cross_entropy(logits, torch.tensor(targets, device=device))
