"""Which codec carries a mode's KV, what that weighs and how long it takes: the break-even rule.

A mode is a quality class. In some of them KV may go as plain groups or, where both ends hold the
same calibrated transform, through that: a fraction of the bytes for many times the arithmetic.
Where the question can be read in time, the transform may be *graded*: it spends its bits on the
positions that matter, and fewer in all, for the seconds of reading before the first block. Each
pays on links slower than the bytes it saves over the seconds it costs (DESIGN §2), with the speeds
that the hosts measured and the rate that the link is forecast to have. This module owns that rule.
It does not know how codecs work.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, Protocol

from scout_core.control.cost import Stage
from scout_core.control.sizes import PayloadSizes
from scout_core.modes import Mode


class StageCosts(Protocol):
    """Seconds per stage; ``CostModel`` is one."""

    def predict(self, stage: Stage, tokens: int) -> float:
        """Seconds the stage is expected to take for ``tokens``."""
        ...


class TransformSizes(Protocol):
    """Expected bytes of transform-coded KV."""

    def transform_bytes(self, positions: int) -> int:
        """Bytes of the KV of ``positions`` positions, block headers included."""
        ...

    def graded_bytes(self, positions: int) -> int:
        """The same where every position has its grade."""
        ...


class KvCoding(Enum):
    """How KV is coded within its mode."""

    PLAIN = "plain"
    """The mode's own codec, which every end knows."""
    TRANSFORM = "transform"
    """The calibrated transform, at the level that stands in for 4-bit groups."""
    GRADED = "graded"
    """The same, finer where the question looks and coarser elsewhere."""

    @property
    def is_transform(self) -> bool:
        """Whether KV goes through the calibrated transform."""
        return self is not KvCoding.PLAIN


TRANSFORMED: Final = (Mode.KV_INT4, Mode.KV_SELECT)
"""Modes whose KV may go through the transform."""

ENCODE_STAGES: Final = {
    Mode.KV_BF16: Stage.EDGE_ENCODE_BF16,
    Mode.KV_INT8: Stage.EDGE_ENCODE_INT8,
    Mode.KV_INT4: Stage.EDGE_ENCODE_INT4,
    Mode.KV_SELECT: Stage.EDGE_ENCODE_SELECT,
}


def encode_stage(mode: Mode, coding: KvCoding) -> Stage:
    """The stage whose cost encoding a KV mode's blocks has."""
    return Stage.EDGE_ENCODE_TRANSFORM if coding.is_transform else ENCODE_STAGES[mode]


def inject_stage(coding: KvCoding) -> Stage:
    """The stage whose cost decoding and injecting has."""
    return Stage.CLOUD_INJECT_TRANSFORM if coding.is_transform else Stage.CLOUD_INJECT


@dataclass(frozen=True, slots=True)
class CodingSources:
    """Where the figures come from.

    Attributes:
        sizes: bytes of each mode's own codec.
        edge_costs: what the edge host measured.
        cloud_costs: what the cloud reported.
        transform: bytes of the transform; None: the two ends do not hold the same one.
        link_bytes_per_s: the rate that the link is expected to have.
        scoring_s: edge seconds until the positions have scores, 0 if they have them or get them in
            any case; None: they will have none in time.
    """

    sizes: PayloadSizes
    edge_costs: StageCosts
    cloud_costs: StageCosts
    transform: TransformSizes | None = None
    link_bytes_per_s: float = math.inf
    scoring_s: float | None = None


@dataclass(frozen=True, slots=True)
class CodedKv:
    """KV of some positions, coded in one way.

    Attributes:
        coding: which way.
        payload_bytes: expected bytes.
        encode_s: edge seconds, overlapped with the transfer.
        inject_s: cloud seconds.
        scoring_s: edge seconds before the first block can be coded.
    """

    coding: KvCoding
    payload_bytes: int
    encode_s: float
    inject_s: float
    scoring_s: float = 0.0

    def seconds_at(self, bytes_per_s: float) -> float:
        """Seconds to a cache that is ready."""
        transfer_s = max(self.payload_bytes / bytes_per_s, self.encode_s)
        return self.scoring_s + transfer_s + self.inject_s


def coded_kv(mode: Mode, positions: int, sources: CodingSources) -> CodedKv:
    """The KV of ``positions`` in a KV mode, coded in the way that is done sooner."""
    ways = tuple(_ways(mode, positions, sources))
    return min(ways, key=lambda coded: coded.seconds_at(sources.link_bytes_per_s))


def _ways(mode: Mode, positions: int, sources: CodingSources) -> Iterator[CodedKv]:
    """Those that the mode and what is known allow, the one with the least arithmetic first."""
    yield CodedKv(
        KvCoding.PLAIN,
        sources.sizes.kv_bytes(mode, positions),
        sources.edge_costs.predict(ENCODE_STAGES[mode], positions),
        sources.cloud_costs.predict(Stage.CLOUD_INJECT, positions),
    )
    if sources.transform is None or mode not in TRANSFORMED:
        return
    transformed = CodedKv(
        KvCoding.TRANSFORM,
        sources.transform.transform_bytes(positions),
        sources.edge_costs.predict(Stage.EDGE_ENCODE_TRANSFORM, positions),
        sources.cloud_costs.predict(Stage.CLOUD_INJECT_TRANSFORM, positions),
    )
    yield transformed
    if sources.scoring_s is not None:
        yield replace(
            transformed,
            coding=KvCoding.GRADED,
            payload_bytes=sources.transform.graded_bytes(positions),
            scoring_s=sources.scoring_s,
        )
