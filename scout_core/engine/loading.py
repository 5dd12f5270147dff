"""From a model reference to a decoder stack in memory: resolve, choose, load, merge, identify."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from scout_core.engine.attention import ATTENTION_NAME
from scout_core.engine.compute import choose_device, choose_dtype
from scout_core.engine.fingerprint import model_identity, tokenizer_identity
from scout_core.engine.gguf_conversion import convert_gguf
from scout_core.engine.hub import HUB_ID, hub_folder
from scout_core.engine.options import EngineOptions
from scout_core.engine.prompt import PromptTemplate
from scout_core.errors import UnknownModelError, UnsupportedModelError
from scout_core.models.adapter import merge_adapter, read_adapter
from scout_core.models.bundled import adapter_file, converted_folder, readout_file
from scout_core.models.registry import BUNDLED_PREFIX, bundled_model
from scout_core.modes import ModelFingerprint

FAMILIES: Final = frozenset({"llama", "qwen2", "qwen3", "mistral", "gemma3_text"})
FOLDER_STARTS: Final = ("/", "./", "../", "~")
"""What makes a reference a folder whatever follows; so does a second slash."""

LINE_BREAKS: Final = ("\n", "\n\n")

Progress = Callable[[str, float], None]
"""Called with the stage's name and the fraction of loading done before it, 0 to 1."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where a model's files are."""

    name: str
    folder: Path
    adapter: Path | None
    layers: int | None
    readout: Path | None = None

    @property
    def trained(self) -> tuple[Path, ...]:
        """Files that were trained on top of the folder's weights."""
        return tuple(path for path in (self.adapter, self.readout) if path is not None)


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model in memory and all that is known of it."""

    name: str
    module: Any
    """transformers' model: with output head when ``decodes``, else the bare stack."""
    config: Any
    tokenizer: Any
    device: torch.device
    dtype: torch.dtype
    decodes: bool
    stop_ids: frozenset[int]
    fingerprint: ModelFingerprint
    tokenizer_fingerprint: str


@dataclass(frozen=True, slots=True)
class ModelTokenizer:
    """How a model that is not loaded here splits text; the fields are those of ``Engine``."""

    name: str
    prompt: PromptTemplate
    tokenizer_fingerprint: str
    vocabulary: int
    context_limit_tokens: int


def load_model(options: EngineOptions, progress: Progress) -> LoadedModel:
    """Loads what the options name.

    Raises:
        UnknownModelError: the reference leads nowhere.
        UnsupportedModelError: not a model that Scout can run.
    """
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    progress("files", 0.0)
    source = resolve(options)
    progress("config", 0.3)
    config, layers = _config(source)
    tokenizer = _tokenizer(source)
    progress("weights", 0.4)
    device = choose_device(options.device)
    dtype = choose_dtype(options.compute_dtype, device)
    module = _module(source, config, dtype, decodes=layers is None)
    if source.adapter is not None:
        progress("adapter", 0.7)
        _merge(source.adapter, module)
    module.to(device).eval().requires_grad_(False)
    progress("fingerprint", 0.8)
    identity = tokenizer_identity(
        source.folder, tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template
    )
    return LoadedModel(
        name=source.name,
        module=module,
        config=config,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        decodes=layers is None,
        stop_ids=_stop_ids(source.folder, config, tokenizer),
        fingerprint=model_identity(source.folder, source.trained, layers, identity),
        tokenizer_fingerprint=identity,
    )


def load_tokenizer(options: EngineOptions) -> ModelTokenizer:
    """The tokenizer of what the options name, without its weights.

    Raises:
        UnknownModelError, UnsupportedModelError: as ``load_model``.
    """
    transformers_logging.set_verbosity_error()
    source = resolve(options)
    config, _ = _config(source)
    tokenizer = _tokenizer(source)
    window: int = config.max_position_embeddings
    return ModelTokenizer(
        name=source.name,
        prompt=PromptTemplate.from_tokenizer(tokenizer),
        tokenizer_fingerprint=tokenizer_identity(
            source.folder, tokenizer.backend_tokenizer.to_str(), tokenizer.chat_template
        ),
        vocabulary=config.vocab_size,
        context_limit_tokens=min(window, options.context_limit_tokens or window),
    )


def resolve(options: EngineOptions) -> ModelSource:
    """The files behind a reference; converts or downloads them on first use.

    Raises:
        UnknownModelError: no such bundled model, folder or hub model.
    """
    reference = options.reference
    if reference.startswith(BUNDLED_PREFIX):
        model = bundled_model(reference.removeprefix(BUNDLED_PREFIX))
        folder = converted_folder(model, convert_gguf)
        return ModelSource(
            name=reference,
            folder=folder,
            adapter=adapter_file(model),
            layers=options.layers or model.layers,
            readout=readout_file(model),
        )
    # pathlib's expanduser and is_dir raise for unknown users and forbidden parents.
    folder = Path(os.path.expanduser(reference))
    if os.path.isdir(folder):
        return ModelSource(reference, folder, None, options.layers)
    if reference.startswith(FOLDER_STARTS) or reference.count("/") > 1:
        raise UnknownModelError(
            f"The model folder {folder.absolute()} is missing or cannot be entered; correct the "
            "path, or name a hub model (owner/name) or a bundled one (bundled:NAME).",
            model=reference,
        )
    if HUB_ID.fullmatch(reference):
        return ModelSource(reference, hub_folder(reference), None, options.layers)
    raise UnknownModelError(
        f"'{reference}' is no bundled model (bundled:NAME), no hub id (owner/name) and no folder.",
        model=reference,
    )


def _config(source: ModelSource) -> tuple[Any, int | None]:
    """The config, cut to the first layers if asked; and how many run where that is not all."""
    try:
        config: Any = AutoConfig.from_pretrained(source.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UnknownModelError(
            f"'{source.name}' has no config.json that transformers can read: {error}",
            model=source.name,
        ) from error
    if config.model_type not in FAMILIES:
        raise UnsupportedModelError(
            f"'{source.name}' is a {config.model_type} model; Scout runs Llama, Qwen2, Qwen3, "
            "Mistral and Gemma 3 text models.",
            model=source.name,
        )
    full: int = config.num_hidden_layers
    if source.layers is None or source.layers == full:
        return config, None
    if source.layers > full:
        raise UnsupportedModelError(
            f"'{source.name}' has {full} layers; cannot run the first {source.layers}.",
        )
    config.num_hidden_layers = source.layers
    if getattr(config, "layer_types", None) is not None:
        config.layer_types = config.layer_types[: source.layers]
    return config, source.layers


def _tokenizer(source: ModelSource) -> Any:
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise UnknownModelError(
            f"'{source.name}' has no tokenizer that transformers can read: {error}",
            model=source.name,
        ) from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UnsupportedModelError(
            f"'{source.name}' has a tokenizer without a tokenizer.json; convert it to one.",
        )
    return tokenizer


def _module(source: ModelSource, config: Any, dtype: torch.dtype, *, decodes: bool) -> Any:
    """The model with its output head, or only the stack when it was cut short."""
    if not any(source.folder.glob("*.safetensors")):
        raise UnknownModelError(
            f"'{source.name}' has no *.safetensors weights; other formats can run code when they "
            "are read. Convert the model first.",
            model=source.name,
        )
    kind = AutoModelForCausalLM if decodes else AutoModel
    return cast("Any", kind).from_pretrained(
        source.folder,
        config=config,
        dtype=dtype,
        attn_implementation=ATTENTION_NAME,
        local_files_only=True,
        use_safetensors=True,
    )


def _merge(adapter: Path, module: Any) -> None:
    """A bare stack's parameters lack the prefix ``model.`` that adapters name layers with."""
    bare = not hasattr(module, "lm_head")
    merge_adapter(
        read_adapter(adapter),
        {("model." if bare else "") + name: value for name, value in module.named_parameters()},
    )


def _stop_ids(folder: Path, config: Any, tokenizer: Any) -> frozenset[int]:
    """Every id that ends an answer, by generation config, model config and tokenizer.

    A model without a chat template continues text: after its answer it would go on with another
    question. There the answer ends with its line.
    """
    named: list[Any] = [getattr(config, "eos_token_id", None), tokenizer.eos_token_id]
    if (folder / "generation_config.json").is_file():
        generation: Any = GenerationConfig.from_pretrained(folder, local_files_only=True)
        named.append(generation.eos_token_id)
    ids: set[int] = set()
    for entry in named:
        if isinstance(entry, int):
            ids.add(entry)
        elif isinstance(entry, list):
            ids.update(cast("list[int]", entry))
    if not tokenizer.chat_template:
        breaks = [tokenizer.encode(text, add_special_tokens=False) for text in LINE_BREAKS]
        ids.update(encoded[0] for encoded in breaks if len(encoded) == 1)
    return frozenset(ids)
