"""A Llama-type GGUF file to a plain model folder: config, bfloat16 safetensors, tokenizer.

transformers reads config and tokenizer (``gguf_file=``). It would read the weights as well, but
asks for another package (accelerate) and then refuses to save them; they are read here, which for
this one architecture is a table of names and one permutation.
"""

from __future__ import annotations

from pathlib import Path
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


def convert_gguf(source: Path, folder: Path) -> None:
    """Writes the model of a GGUF file into an empty folder.

    Raises:
        UnsupportedModelError: not a Llama-type model.
    """
    config: Any = AutoConfig.from_pretrained(source.parent, gguf_file=source.name)
    if config.model_type != "llama":
        raise UnsupportedModelError(
            f"{source.name} holds a {config.model_type} model; only Llama-type GGUF files convert.",
        )
    config.dtype = torch.bfloat16
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)
    tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    tokenizer.save_pretrained(folder)
    GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id
    ).save_pretrained(folder)
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    weights = {
        _name(tensor.name): _weight(tensor, heads).to(torch.bfloat16)
        for tensor in GGUFReader(source).tensors
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _name(gguf_name: str) -> str:
    parts = gguf_name.split(".")
    match parts:
        case [top, "weight"] if top in TOP_NAMES:
            return f"{TOP_NAMES[top]}.weight"
        case ["blk", layer, part, "weight"] if part in LAYER_NAMES:
            return f"model.layers.{layer}.{LAYER_NAMES[part]}.weight"
        case _:
            raise UnsupportedModelError(f"The GGUF file has a tensor '{gguf_name}' we don't know.")


def _weight(tensor: Any, heads: dict[str, int]) -> torch.Tensor:
    """Dequantised float32 weight; rows of q and k in the order that transformers rotates them.

    GGUF stores a head's rows as interleaved pairs, transformers as two halves.
    """
    values = np.asarray(dequantize(tensor.data, tensor.tensor_type), dtype=np.float32)
    part = tensor.name.split(".")[-2]
    if part in heads:
        pairs = values.reshape(heads[part], -1, 2, values.shape[1])
        values = pairs.swapaxes(1, 2).reshape(values.shape)
    return torch.from_numpy(np.array(values))
