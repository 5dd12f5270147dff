"""Profiles: what ``scout calibrate`` measured for a pair of models, as a JSON file.

Owns the schema (version 1) and its checks. It does not know how the figures came about.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from scout_core.control.cost import Stage, StageCost
from scout_core.errors import ProfileError
from scout_core.models.quality import QualityRow, QualityTable
from scout_core.modes import Execution, Mode
from scout_core.selection.head_weights import HeadWeights

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelRecord(_Record):
    """Which model a figure belongs to."""

    name: str
    fingerprint: Digest


class HeadWeightsRecord(_Record):
    """See ``scout_core.selection.HeadWeights``."""

    layers: int = Field(ge=1)
    heads: int = Field(ge=1)
    weights: tuple[tuple[float, ...], ...]
    bias: float
    pool_width: int = Field(ge=1)
    pool_kind: str
    lexical: tuple[float, ...] | None = None

    def read(self) -> HeadWeights:
        """The weights as tensors.

        Raises:
            ProfileError: shapes or values that make no sense.
        """
        return HeadWeights.from_dict(self.model_dump())


class QualityRecord(_Record):
    """One row of the quality table; ``quality`` is relative to the full context."""

    mode: Mode
    execution: Execution
    retention: float = Field(gt=0, le=1)
    context_tokens_low: int = Field(ge=1)
    context_tokens_high: int = Field(ge=1)
    quality: float = Field(ge=0)
    n: int = Field(ge=1, description="questions measured")
    low: float = Field(description="lower end of the 95 % interval")
    high: float = Field(description="upper end of the 95 % interval")
    codec: str | None = Field(
        default=None,
        description="what a KV mode's cache was coded with; unsaid before there were several",
    )


class CostRecord(_Record):
    """One stage's cost line, measured where the profile was made; a start for the cost model."""

    stage: Stage
    base_s: float = Field(ge=0)
    per_token_s: float = Field(ge=0)
    samples: int = Field(ge=0)


class Profile(_Record):
    """A calibrated pair.

    ``cloud_head_weights`` choose for kv_select (scored by the cloud's model on the edge),
    ``scout_head_weights`` for scout mode.
    """

    schema_version: Literal[1]
    name: str = Field(min_length=1)
    cloud: ModelRecord
    scout: ModelRecord | None = None
    cloud_head_weights: HeadWeightsRecord | None = None
    scout_head_weights: HeadWeightsRecord | None = None
    quality: tuple[QualityRecord, ...] = Field(min_length=1)
    costs: tuple[CostRecord, ...] = ()
    data_sha256: Digest
    data_description: str
    kv_coding: str | None = Field(
        default=None,
        description="transform basis and levels of KV modes' rows, or plain groups; once unsaid",
    )

    def quality_table(self) -> QualityTable:
        """The rows as a table.

        Raises:
            ProfileError: a mode has no row.
        """
        return QualityTable(self.name, (QualityRow(**dict(row)) for row in self.quality))

    def stage_costs(self) -> tuple[StageCost, ...]:
        return tuple(StageCost(**dict(cost)) for cost in self.costs)

    def require_for(self, cloud_fingerprint: str, scout_fingerprint: str | None) -> None:
        """Checks that this profile was measured with these two models.

        Raises:
            ProfileError: it was not.
        """
        if self.cloud.fingerprint != cloud_fingerprint:
            raise ProfileError(
                f"Profile {self.name} was made for another cloud model ({self.cloud.name}); "
                "run 'scout calibrate' for this one.",
                profile=self.name,
                expected=self.cloud.fingerprint,
                got=cloud_fingerprint,
            )
        if scout_fingerprint is None:
            return
        if self.scout is None or self.scout.fingerprint != scout_fingerprint:
            known = "no scout" if self.scout is None else self.scout.name
            raise ProfileError(
                f"Profile {self.name} was made with {known}, not with this scout; "
                "run 'scout calibrate' for this pair.",
                profile=self.name,
                got=scout_fingerprint,
            )


def read_profile(path: Path) -> Profile:
    """Reads and checks a profile.

    Raises:
        ProfileError: no such file, not JSON, or a key that is missing, unknown or out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"Profile {path.name} cannot be read: {error}.") from error
    try:
        return Profile.model_validate_json(text)
    except ValidationError as error:
        raise ProfileError(f"Profile {path.name} is malformed: {_first_problem(error)}.") from error


def write_profile(profile: Profile, path: Path) -> None:
    """Writes a profile that ``read_profile`` reads."""
    path.write_text(profile.model_dump_json(indent=1, exclude_none=True) + "\n", encoding="utf-8")


def _first_problem(error: ValidationError) -> str:
    problem: Any = error.errors()[0]
    place = ".".join(str(part) for part in problem["loc"]) or "the document"
    return f"{place}: {problem['msg']}"
