"""The calibrated artefact of the ``transform`` codec: bases, scales and shared entropy models.

Owns the artefact's content, its checks and its file (safetensors: no code, no pickle); knows
neither how it was calibrated (``scout_core.evaluation.codec_calibration``) nor the payload.

The layers are cut into equal groups of neighbours. For each kind (keys before rotary embedding,
values) and group, a cache row of ``width = layers in group · kv_heads · head_dim`` elements is

    row = mean + inverse · coefficients,        coefficients = forward · (row − mean),

where ``inverse`` holds, per column, 8-bit integers and one float scale, and ``forward`` is its
exact inverse, computed on loading. Coefficients are uncorrelated on the calibration texts and
scaled so that an error of one in any of them costs the model's output equally much; ``deviations``
holds their standard deviations. ``sinks`` replaces the mean at the first absolute positions, whose
tokens are the chat template's and therefore always the same.

Two ends can code for each other if their bases have equal digests; a payload names its basis by the
digest's first bytes (``tag``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from scout_core.codec.rans import TOTAL, RansModels
from scout_core.errors import CodecError, ProfileError
from scout_core.geometry import KvGeometry
from scout_core.modes import ModelFingerprint

FORMAT: Final = "scout-transform-basis-2"
PAYLOAD_VERSION: Final = 4
"""Of the bytes that ``transform_payload`` describes. Ends of different versions share no digest."""
TAG_BYTES: Final = 4
MAX_SINKS: Final = 32
CLASSES: Final = 48
"""Entropy models: coefficients of like deviation-to-step ratio share one."""
CLASSES_PER_OCTAVE: Final = 4
LOWEST_CLASS_OCTAVE: Final = -2
"""Of class 0: deviations from a quarter of the step on."""
ALPHABET: Final = 256
"""Quantised values -127..127 as 0..254; 255 announces an escape."""
SENDERS: Final = ("int4_level", "graded_level")
"""What the artefact advises senders, and no payload's meaning depends on."""
MAX_ARTEFACT_BYTES: Final = 64 * 1024 * 1024


@dataclass(frozen=True, eq=False)
class TransformBasis:
    """See the module's docstring; ``groups`` counts the groups of layers of each kind.

    Shapes: ``integers`` int8 ``[2, groups, width, width]``; ``scales`` ``[2, groups, width]``;
    ``means`` ``[2, groups, width]``; ``deviations`` ``[2, groups, width]``, descending;
    ``sinks`` ``[2, sink positions, groups, width]``; ``frequencies`` uint16
    ``[CLASSES, ALPHABET]``; ``shrinkage`` ``[CLASSES]``: how far from the lattice point, in steps
    and away from zero, a value quantised to ±1 is reconstructed.
    """

    fingerprint: ModelFingerprint
    """Of the model whose caches it was calibrated on."""
    geometry: KvGeometry
    theta: float
    finest_step: float
    int4_level: int
    """The coarsest level that diverges by a share of what ``int4_groups`` do on the calibration
    texts (``evaluation/codec_levels.py``): what senders code 4-bit modes with."""
    graded_level: int
    """The same where positions are graded by what is asked: coarser, or ``int4_level``."""
    integers: torch.Tensor
    scales: torch.Tensor
    means: torch.Tensor
    deviations: torch.Tensor
    sinks: torch.Tensor
    frequencies: NDArray[np.uint16]
    shrinkage: torch.Tensor

    def __post_init__(self) -> None:
        groups, width = self.groups, self.width
        expected = {
            "integers": (2, groups, width, width),
            "scales": (2, groups, width),
            "means": (2, groups, width),
            "deviations": (2, groups, width),
            "sinks": (2, min(self.sinks.shape[1], MAX_SINKS), groups, width),
            "frequencies": (CLASSES, ALPHABET),
            "shrinkage": (CLASSES,),
        }
        for name, shape in expected.items():
            actual = tuple(getattr(self, name).shape)
            if actual != shape:
                raise ProfileError(f"Transform basis: {name} has shape {actual}, needs {shape}.")
        per_group = self.geometry.kv_heads * self.geometry.head_dim
        if width * groups != self.geometry.layers * per_group:
            raise ProfileError("Transform basis: groups do not cover the model's layers.")

    @property
    def groups(self) -> int:
        """Groups of layers."""
        return self.integers.shape[1]

    @property
    def width(self) -> int:
        """Elements of one position in one group and kind."""
        return self.integers.shape[2]

    @property
    def inverse(self) -> torch.Tensor:
        """float32 ``[2, groups, width, width]``: coefficients to elements. Not kept."""
        return self.integers.float() * self.scales[:, :, None, :]

    @cached_property
    def forward(self) -> torch.Tensor:
        """float32 ``[2, groups, width, width]``: elements to coefficients."""
        # torch 2.13's own inverse fails on stacked matrices after torch.set_num_threads(2)
        return torch.from_numpy(np.linalg.inv(self.inverse.double().numpy())).float()

    @cached_property
    def forward_bf16(self) -> torch.Tensor:
        """``forward`` rounded to bf16."""
        return self.forward.to(torch.bfloat16)

    @cached_property
    def origins(self) -> torch.Tensor:
        """float32 ``[2, groups, 1 + sink positions, width]``: the means, then the sinks."""
        means = self.means[:, :, None]
        return torch.cat((means, self.sinks.transpose(1, 2)), dim=2).contiguous()

    @cached_property
    def coder(self) -> RansModels:
        """The shared entropy models, ready to code with."""
        return RansModels.of(self.frequencies)

    @cached_property
    def digest(self) -> str:
        """Hex SHA-256 of everything that a payload's meaning depends on."""
        named = {name: text for name, text in self._metadata.items() if name not in SENDERS}
        hashed = hashlib.sha256(f"{FORMAT} {PAYLOAD_VERSION} {sorted(named.items())}".encode())
        for name, tensor in sorted(self._tensors.items()):
            hashed.update(name.encode())
            hashed.update(tensor.view(torch.uint8).numpy().tobytes())
        return hashed.hexdigest()

    @cached_property
    def tag(self) -> bytes:
        """What payloads name the basis by."""
        return bytes.fromhex(self.digest)[:TAG_BYTES]

    def save(self, path: Path) -> None:
        """Writes the artefact."""
        save_file(self._tensors, path, self._metadata | {"format": FORMAT})

    @property
    def _tensors(self) -> dict[str, torch.Tensor]:
        """As they are in the file."""
        tensors = {
            "integers": self.integers,
            "scales": self.scales,
            "means": self.means,
            "deviations": self.deviations,
            "sinks": self.sinks.to(torch.bfloat16),
            "frequencies": torch.from_numpy(self.frequencies.astype(np.int16)),
            "shrinkage": self.shrinkage,
        }
        return {name: value.contiguous() for name, value in tensors.items()}

    @property
    def _metadata(self) -> dict[str, str]:
        return {
            "fingerprint": self.fingerprint,
            "layers": str(self.geometry.layers),
            "kv_heads": str(self.geometry.kv_heads),
            "head_dim": str(self.geometry.head_dim),
            "theta": repr(self.theta),
            "finest_step": repr(self.finest_step),
            "int4_level": str(self.int4_level),
            "graded_level": str(self.graded_level),
        }

    @classmethod
    def load(cls, path: Path) -> TransformBasis:
        """Reads an artefact.

        Raises:
            ProfileError: missing, too large, of another format, or inconsistent.
        """
        if not path.is_file() or path.stat().st_size > MAX_ARTEFACT_BYTES:
            raise ProfileError(f"No transform basis of plausible size at {path.name}.")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping, only keys()
        except SafetensorError as error:
            raise ProfileError(f"{path.name} is no safetensors file.") from error
        if metadata.get("format") != FORMAT:
            raise ProfileError(f"{path.name} is no {FORMAT}; calibrate again.")
        try:
            basis = cls(
                fingerprint=ModelFingerprint(metadata["fingerprint"]),
                geometry=KvGeometry(
                    int(metadata["layers"]), int(metadata["kv_heads"]), int(metadata["head_dim"])
                ),
                theta=float(metadata["theta"]),
                finest_step=float(metadata["finest_step"]),
                int4_level=int(metadata["int4_level"]),
                graded_level=int(metadata.get("graded_level", metadata["int4_level"])),
                integers=tensors["integers"],
                scales=tensors["scales"],
                means=tensors["means"],
                deviations=tensors["deviations"],
                sinks=tensors["sinks"].float(),
                frequencies=tensors["frequencies"].numpy().astype(np.uint16),
                shrinkage=tensors["shrinkage"],
            )
            if int(basis.frequencies.sum(dtype=np.int64)) != TOTAL * CLASSES:
                raise ProfileError(f"{path.name}: entropy models do not sum up.")
        except (KeyError, ValueError, CodecError) as error:
            raise ProfileError(f"{path.name} lacks or garbles {error}.") from error
        return basis


def classes_of(deviations: torch.Tensor, step: float) -> torch.Tensor:
    """The entropy class of each coefficient at a step; -1 below the lowest. int64."""
    return unbounded_classes_of(deviations, step).clamp(min=-1, max=CLASSES - 1)


def unbounded_classes_of(deviations: torch.Tensor, step: float) -> torch.Tensor:
    """The same if there were classes without end on either side."""
    octaves = torch.log2(deviations.double() / step) - LOWEST_CLASS_OCTAVE
    return (octaves * CLASSES_PER_OCTAVE).floor().long()
