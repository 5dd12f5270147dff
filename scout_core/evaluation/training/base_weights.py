"""The base model's weights from a converted folder (config.json, model.safetensors, tokenizer).

Owns reading; the conversion from the package's GGUF file is the engine's. Knows no data.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from scout_core.evaluation.quality_answers import Model
from scout_core.evaluation.quality_decoder import DecoderShape, stacked_weights
from scout_core.evaluation.training.adapter import Base, LowRank, merged
from scout_core.evaluation.training.prompts import Prompter


def decoder_shape(folder: Path) -> DecoderShape:
    """Sizes from the folder's ``config.json``."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    rope = config.get("rope_parameters") or {}
    heads = int(config["num_attention_heads"])
    return DecoderShape(
        layers=int(config["num_hidden_layers"]),
        heads=heads,
        kv_heads=int(config["num_key_value_heads"]),
        head_dim=int(config.get("head_dim") or int(config["hidden_size"]) // heads),
        rope_theta=float(rope.get("rope_theta") or config["rope_theta"]),
        norm_epsilon=float(config["rms_norm_eps"]),
    )


def load_base(folder: Path, device: torch.device) -> tuple[Base, DecoderShape, Prompter]:
    """Base weights on ``device`` (bfloat16 compute on a GPU, float32 on a CPU) and tokenizer."""
    shape = decoder_shape(folder)
    state = {k: v.float() for k, v in load_file(str(folder / "model.safetensors")).items()}
    compute = torch.bfloat16 if device.type == "cuda" else torch.float32
    stacks = {k: v.to(device) for k, v in stacked_weights(state, shape.layers).items()}
    base = Base(
        stacks=stacks,
        embedding=state["model.embed_tokens.weight"].to(device, compute),
        final_norm=state["model.norm.weight"].to(device),
        compute_dtype=compute,
    )
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    return base, shape, Prompter(tokenizer)


@torch.no_grad()
def ready_model(base: Base, shape: DecoderShape, adapter: LowRank | None, stop: int) -> Model:
    """A model that answers, with the adapter merged."""
    return Model(merged(base, adapter, layers=shape.layers), shape, frozenset((stop,)))
