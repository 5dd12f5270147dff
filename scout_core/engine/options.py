"""How an engine is loaded: model, numeric type, device, depth, block size. Knows no tensors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from scout_core.errors import SettingsError

ComputeDtype = Literal["auto", "float32", "bfloat16"]
Device = Literal["auto", "cpu", "cuda"]

DEFAULT_BLOCK_TOKENS = 64


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """Options of one engine.

    Args:
        reference: ``bundled:NAME``, a hub id (``owner/name``) or a local folder.
        compute_dtype: what the forward pass and the cache are held in; ``auto`` chooses per host.
        device: ``auto`` takes a GPU where there is one.
        layers: run only the first so many decoder layers (a scout: it scores, it cannot decode).
        block_tokens: positions per prefill block and per KV block on the wire. Two hosts get the
            same KV bit for bit only with the same value.
        threads: CPU threads of torch; None leaves the process's setting.
        context_limit_tokens: most positions of prompt and answer; never above the model's window.

    Raises:
        SettingsError: a number is not positive.
    """

    reference: str
    compute_dtype: ComputeDtype = "auto"
    device: Device = "auto"
    layers: int | None = None
    block_tokens: int = DEFAULT_BLOCK_TOKENS
    threads: int | None = None
    context_limit_tokens: int | None = None

    def __post_init__(self) -> None:
        for name, value in (
            ("layers", self.layers),
            ("block_tokens", self.block_tokens),
            ("threads", self.threads),
            ("context_limit_tokens", self.context_limit_tokens),
        ):
            if value is not None and value < 1:
                raise SettingsError(f"Engine option {name} must be at least 1, got {value}.")
