"""Model folders small enough to make in a test: random weights, a tokenizer trained on the spot.

One folder per supported family, with grouped query heads and tied embeddings, saved as a real
model would be, so that tests go through the same loading as users do.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from scout_core.engine import Engine, EngineOptions

FAMILIES: Final = ("llama", "qwen2", "qwen3", "mistral", "gemma3")
SLIDING: Final = "gemma3"
"""The family with sliding windows: two layers of three see this many positions."""
SLIDING_WINDOW: Final = 8
LAYERS: Final = 3
HEADS: Final = 4
KV_HEADS: Final = 2
HEAD_DIM: Final = 16
BLOCK_TOKENS: Final = 8
WINDOW_TOKENS: Final = 512
END: Final = "<|end|>"
CHAT_TEMPLATE: Final = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|start|>system\nYou are a tiny model that answers questions.<|end|>\n{% endif %}"
    "<|start|>{{ message['role'] }}\n{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n{% endif %}"
)
CORPUS: Final = (
    "The lighthouse stands on the northern cape and was built of granite by an engineer.",
    "Passage: the lamp was converted to electricity; the beam reaches twenty two miles.",
    "Question: who built the lighthouse? Answer with a short phrase from the passage.",
)


def save_tiny_model(
    folder: Path,
    family: str = "llama",
    *,
    seed: int = 0,
    template: str | None = CHAT_TEMPLATE,
    tokenizer: Tokenizer | None = None,
) -> Path:
    """Writes a model of the family into the folder; equal seeds give equal files.

    ``tokenizer`` is ``tiny_tokenizer()`` unless another is given.
    """
    tokenizer = tokenizer or tiny_tokenizer()
    wrapped: Any = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    wrapped.chat_template = template
    wrapped.save_pretrained(folder)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    model = _model(family, tokenizer.get_vocab_size())
    torch.random.set_rng_state(state)
    model.generation_config = GenerationConfig(eos_token_id=wrapped.eos_token_id)
    model.save_pretrained(folder)
    return folder


def tiny_engine(folder: Path, **options: Any) -> Engine:
    """Loads a tiny folder on the CPU, in float32 unless told otherwise."""
    settings: dict[str, Any] = {
        "compute_dtype": "float32",
        "device": "cpu",
        "block_tokens": BLOCK_TOKENS,
        "threads": 1,
    }
    return Engine.load(EngineOptions(str(folder), **(settings | options)))


def tiny_tokenizer() -> Tokenizer:
    """Byte-level BPE with two control tokens, as Llama and Qwen have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320,
        special_tokens=["<|start|>", END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def foreign_tokenizer() -> Tokenizer:
    """Another family's: words keep the space before them, unknown characters fall to bytes.

    As Gemma has it; splits text elsewhere than ``tiny_tokenizer``, with the same control tokens.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(
        vocab_size=240, special_tokens=["<|start|>", END, "<unk>"], show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    facts: dict[str, Any] = json.loads(tokenizer.to_str())
    vocabulary: dict[str, int] = facts["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    facts["model"] |= {"byte_fallback": True, "unk_token": "<unk>"}
    extended = Tokenizer.from_str(json.dumps(facts))
    extended.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return extended


def random_tokens(engine: Engine, count: int, seed: int = 0) -> list[int]:
    """Token ids, none of them control tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2, engine.vocabulary, (count,), generator=generator).tolist()


def reference_logits(
    folder: Path, tokens: Sequence[int], positions: Sequence[int], mask: torch.Tensor
) -> torch.Tensor:
    """Logits ``[count, vocabulary]`` of plain transformers, eager attention, explicit mask.

    Args:
        mask: bool ``[count, count]``, true where a row (query) sees a column (key); windows of
            layers that have them are added here.
    """
    model = reference_model(folder)
    places = torch.tensor(list(positions))
    near = places[:, None] - places[None, :] < SLIDING_WINDOW
    bias: Any = _bias(mask)
    if "sliding_attention" in (getattr(model.config, "layer_types", None) or ()):
        bias = {"full_attention": bias, "sliding_attention": _bias(mask & near)}
    with torch.no_grad():
        output = model(
            input_ids=torch.tensor([list(tokens)]),
            position_ids=places[None],
            attention_mask=bias,
            use_cache=False,
        )
    return output.logits[0]


def _bias(mask: torch.Tensor) -> torch.Tensor:
    return torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))[None, None]


def reference_model(folder: Path) -> Any:
    """The folder's model in float32 with transformers' own eager attention."""
    family = json.loads((folder / "config.json").read_text())["model_type"]
    return (
        _CLASSES[family]
        .from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32, local_files_only=True
        )
        .eval()
    )


_CLASSES: Final[dict[str, Any]] = {
    "llama": LlamaForCausalLM,
    "qwen2": Qwen2ForCausalLM,
    "qwen3": Qwen3ForCausalLM,
    "mistral": MistralForCausalLM,
    "gemma3_text": Gemma3ForCausalLM,
}


def _model(family: str, vocabulary: int) -> Any:
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": HEADS * HEAD_DIM,
        "intermediate_size": 96,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "max_position_embeddings": WINDOW_TOKENS,
        "tie_word_embeddings": True,
        "initializer_range": 0.2,  # large, so that different inputs give clearly different logits
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": None,
    }
    match family:
        case "llama":
            return LlamaForCausalLM(LlamaConfig(**shape))
        case "qwen2":
            return Qwen2ForCausalLM(Qwen2Config(**shape))
        case "qwen3":
            return Qwen3ForCausalLM(Qwen3Config(**shape))
        case "mistral":
            return MistralForCausalLM(MistralConfig(**shape, sliding_window=None))
        case "gemma3":
            return Gemma3ForCausalLM(
                Gemma3TextConfig(
                    **shape,
                    sliding_window=SLIDING_WINDOW,
                    query_pre_attn_scalar=HEAD_DIM,
                    layer_types=["sliding_attention", "full_attention", "sliding_attention"],
                )
            )
        case _:
            raise ValueError(f"no tiny model of family {family}")
