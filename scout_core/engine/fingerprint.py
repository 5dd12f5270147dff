"""Identities: two engines with equal fingerprints compute interchangeable KV.

Covers the weights (file content, adapter and readout included), the config, the tokenizer and the
chat template, and how many layers run. Not the numeric type: that is reported, not identified.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from scout_core.models.digests import file_digest
from scout_core.modes import ModelFingerprint

PASSING_KEYS: Final = frozenset(
    {"transformers_version", "_name_or_path", "dtype", "torch_dtype", "use_cache", "architectures"}
)
"""Config entries that say how a model was saved or is run, not what it computes."""


def tokenizer_identity(folder: Path, serialised: str, chat_template: str | None) -> str:
    """Hex SHA-256 of tokenizer and template.

    Args:
        serialised: the loaded tokenizer as JSON; used only where the folder has no tokenizer.json.
    """
    file = folder / "tokenizer.json"
    text = file.read_text(encoding="utf-8") if file.is_file() else serialised
    return _digest({"tokenizer": json.loads(text), "chat_template": chat_template})


def model_identity(
    folder: Path, trained: Sequence[Path], layers: int | None, tokenizer: str
) -> ModelFingerprint:
    """Hex SHA-256 over everything that decides what the model computes.

    Args:
        folder: with config.json and the weights as ``*.safetensors``.
        trained: what was trained on top: the adapter, a scout's readout.
        layers: how many run, where not all do.
        tokenizer: see ``tokenizer_identity``.
    """
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return ModelFingerprint(
        _digest(
            {
                "weights": [file_digest(path) for path in sorted(folder.glob("*.safetensors"))],
                "adapter": [file_digest(path) for path in trained] or None,
                "config": {k: v for k, v in config.items() if k not in PASSING_KEYS},
                "layers": layers,
                "tokenizer": tokenizer,
            }
        )
    )


def _digest(facts: Mapping[str, Any]) -> str:
    canonical = json.dumps(facts, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()
