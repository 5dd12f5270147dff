"""A Llama or Gemma 3 GGUF file to a plain model folder: config, bfloat16 safetensors, tokenizer.

transformers reads config and tokenizer (``gguf_file=``). It would read the weights as well, but
asks for another package (accelerate) and then refuses to save them; they are read here, which for
these architectures is a table of names and, for Llama, one permutation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import torch
from gguf import GGUFReader
from gguf.quants import dequantize
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from scout_core.errors import UnsupportedModelError

TOP_NAMES: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
LAYER_NAMES: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GEMMA_LAYER_NAMES: Final = {
    **LAYER_NAMES,
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}


@dataclass(frozen=True, slots=True)
class _Architecture:
    """How one kind of model is stored.

    Args:
        name: transformers' class.
        paired_rows: a head's rows of q and k are stored as interleaved pairs; transformers has two
            halves.
        norm_offset: norms are stored with this added to what transformers keeps.
    """

    name: str
    layer_names: Mapping[str, str]
    paired_rows: bool
    norm_offset: float


ARCHITECTURES: Final = MappingProxyType(
    {
        "llama": _Architecture("LlamaForCausalLM", LAYER_NAMES, True, 0.0),
        "gemma3_text": _Architecture("Gemma3ForCausalLM", GEMMA_LAYER_NAMES, False, 1.0),
    }
)


def convert_gguf(source: Path, folder: Path) -> None:
    """Writes the model of a GGUF file into an empty folder.

    Raises:
        UnsupportedModelError: neither a Llama-type nor a Gemma 3 text model.
    """
    config: Any = AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is None:
        raise UnsupportedModelError(
            f"{source.name} holds a {config.model_type} model; only Llama-type and Gemma 3 text "
            "GGUF files convert.",
        )
    config.dtype = torch.bfloat16
    config.architectures = [architecture.name]
    config.save_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    ).save_pretrained(folder)
    heads: dict[str, int] = {}
    if architecture.paired_rows:
        heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights: dict[str, torch.Tensor] = {}
    for tensor in GGUFReader(source).tensors:
        name = _name(tensor.name, architecture)
        weight = _weight(tensor, heads)
        if name.endswith("norm.weight"):
            weight -= architecture.norm_offset
        weights[name] = weight.to(torch.bfloat16)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _name(gguf_name: str, architecture: _Architecture) -> str:
    parts = gguf_name.split(".")
    match parts:
        case [top, "weight"] if top in TOP_NAMES:
            return f"{TOP_NAMES[top]}.weight"
        case ["blk", layer, part, "weight"] if part in architecture.layer_names:
            return f"model.layers.{layer}.{architecture.layer_names[part]}.weight"
        case _:
            raise UnsupportedModelError(f"The GGUF file has a tensor '{gguf_name}' we don't know.")


def _weight(tensor: Any, heads: Mapping[str, int]) -> torch.Tensor:
    """Dequantised float32 weight; rows of ``heads``' tensors in the order transformers rotates."""
    values = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
    part = tensor.name.split(".")[-2]
    if part in heads:
        pairs = values.reshape(heads[part], -1, 2, values.shape[1])
        values = pairs.swapaxes(1, 2).reshape(values.shape)
    return torch.from_numpy(np.array(values))
