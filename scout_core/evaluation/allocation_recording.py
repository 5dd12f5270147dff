"""The KV of one context, computed once and encoded in every whole-KV mode, for agents to replay.

Two cores cannot prefill for eight agents at once, so the agents of the real-time allocation study
send what was recorded. This module owns the recording and its files; it knows neither model nor
sessions: the agents need no torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scout_core.modes import ContextHash, Mode
from scout_core.protocol.opening import Offer

QUALITIES: Final = {Mode.KV_BF16: 1.0, Mode.KV_INT8: 0.97, Mode.KV_INT4: 0.9, Mode.SCOUT: 0.5}
"""Made up so that there is something to allocate: measured, they differ by a percent."""
INDEX_FILE: Final = "recording.json"


@dataclass(frozen=True, slots=True)
class Recording:
    """What an agent needs to serve a request without a model.

    Attributes:
        fingerprint, context_hash, context_tokens: of the model and the context.
        blocks: per mode the wire's blocks, in order; all whole-KV modes have equally many.
    """

    fingerprint: str
    context_hash: ContextHash
    context_tokens: int
    blocks: dict[Mode, tuple[bytes, ...]]

    def offers(self) -> tuple[Offer, ...]:
        """Every mode with its exact size."""
        return tuple(
            Offer(mode, 1.0, sum(map(len, blocks)), QUALITIES[mode], 0.0)
            for mode, blocks in self.blocks.items()
        )

    def save(self, folder: Path) -> None:
        """One file of blocks per mode, and an index."""
        index = {
            "fingerprint": self.fingerprint,
            "context_hash": self.context_hash.hex(),
            "context_tokens": self.context_tokens,
            "lengths": {mode.value: [*map(len, blocks)] for mode, blocks in self.blocks.items()},
        }
        (folder / INDEX_FILE).write_text(json.dumps(index), encoding="utf-8")
        for mode, blocks in self.blocks.items():
            (folder / mode.value).write_bytes(b"".join(blocks))

    @classmethod
    def load(cls, folder: Path) -> Recording:
        """What ``save`` wrote."""
        index = json.loads((folder / INDEX_FILE).read_text(encoding="utf-8"))
        blocks: dict[Mode, tuple[bytes, ...]] = {}
        for name, lengths in index["lengths"].items():
            data, parts, start = (folder / name).read_bytes(), list[bytes](), 0
            for length in lengths:
                parts.append(data[start : start + length])
                start += length
            blocks[Mode(name)] = tuple(parts)
        key = ContextHash(bytes.fromhex(index["context_hash"]))
        return cls(index["fingerprint"], key, index["context_tokens"], blocks)
