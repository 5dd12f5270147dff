"""The trained readout: from attention and word overlap to one score per context token.

Owns the small network and its file. Channels, in order: log-attention of the question's rows over
the passage (per layer and head the mean over rows, then the last row), the lexical features raw and
standardised, then a projection of every passage token's hidden state (the question stands before
the passage, so a token's state knows it). Knows neither models nor tokenizers. Trained by
``scout_core.evaluation.training``.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from scout_core.errors import ProfileError

CONVOLUTION_WIDTH = 9
LEXICAL_SCALE = 1.0 / 3.0
"""Brings the raw lexical features, decayed sums of up to about 7, to the others' range."""
PROJECTION = "readout.project"
NAMES = (
    PROJECTION,
    "readout.linear",
    "readout.inner",
    "readout.inner_bias",
    "readout.spread",
    "readout.mix",
    "readout.mix_bias",
    "readout.out",
)


def standardised(x: Tensor, valid: Tensor) -> Tensor:
    """Zero mean, unit variance over the valid positions of the last axis; 0 elsewhere."""
    weight = valid.to(x.dtype)
    count = weight.sum(-1, keepdim=True).clamp_min(1)
    mean = (x * weight).sum(-1, keepdim=True) / count
    centred = (x - mean) * weight
    spread = (centred.square().sum(-1, keepdim=True) / count + 1e-6).sqrt()
    return centred / spread


def lexical_channels(table: Tensor, valid: Tensor) -> Tensor:
    """``[B, columns, n]`` lexical features as the readout's ``[B, 2 · columns, n]`` channels."""
    return torch.cat((table * valid * LEXICAL_SCALE, standardised(table, valid)), dim=1)


@dataclass(slots=True)
class Readout:
    """Linear path plus a small convolutional network over feature channels."""

    tensors: dict[str, Tensor]
    dropout: float = 0.0

    @property
    def channels(self) -> int:
        """Feature channels it reads beside the projected hidden states."""
        projected = self.tensors[PROJECTION].shape[0]
        return self.tensors["readout.linear"].shape[0] - projected

    @property
    def hidden_size(self) -> int:
        return self.tensors[PROJECTION].shape[1]

    def parameters(self) -> list[Tensor]:
        return list(self.tensors.values())

    def scores(
        self, features: Tensor, hidden: Tensor, valid: Tensor, *, training: bool = False
    ) -> Tensor:
        """Scores ``[B, n]``; invalid positions get -1e4.

        Args:
            features: ``[B, channels, n]``.
            hidden: the passage tokens' normed hidden states ``[B, n, hidden]``.
            valid: bool ``[B, n]``.
        """
        part = self.tensors
        conv = nn.functional.conv1d
        projected = nn.functional.linear(hidden.float(), part[PROJECTION]).transpose(1, 2)
        x = torch.cat((features, projected * valid[:, None, :]), dim=1)
        x = nn.functional.dropout(x, self.dropout, training)
        linear = (part["readout.linear"][None, :, None] * x).sum(1)
        hidden = conv(x, part["readout.inner"][:, :, None], part["readout.inner_bias"])
        hidden = nn.functional.gelu(hidden) * valid[:, None, :]
        wide = part["readout.spread"]
        half = CONVOLUTION_WIDTH // 2
        spread = conv(hidden, wide[:, None, :], padding=half, groups=wide.shape[0])
        mixed = conv(spread, part["readout.mix"][:, :, None], part["readout.mix_bias"])
        out = part["readout.out"][None, :, None] * nn.functional.gelu(mixed)
        return (linear + out.sum(1)).masked_fill(~valid, -1e4)


@dataclass(frozen=True, slots=True)
class ReadoutShape:
    """Feature channels, hidden size of the model, projected channels and inner width."""

    channels: int
    hidden_size: int
    projected: int
    width: int


def fresh_readout(shape: ReadoutShape, *, seed: int, device: torch.device) -> Readout:
    """A new readout; the network starts silent, the linear path uniform over its features."""
    channels, width = shape.channels + shape.projected, shape.width
    generator = torch.Generator().manual_seed(seed)

    def noise(*size: int) -> Tensor:
        return torch.randn(size, generator=generator) * size[-1] ** -0.5

    linear = torch.zeros(channels)
    linear[: shape.channels] = 1.0 / max(shape.channels, 1)
    tensors = {
        PROJECTION: noise(shape.projected, shape.hidden_size),
        "readout.linear": linear,
        "readout.inner": noise(width, channels),
        "readout.inner_bias": torch.zeros(width),
        "readout.spread": noise(width, CONVOLUTION_WIDTH),
        "readout.mix": noise(width, width),
        "readout.mix_bias": torch.zeros(width),
        "readout.out": torch.zeros(width),
    }
    return Readout({name: t.to(device).requires_grad_() for name, t in tensors.items()})


def load_readout(path: Path, device: torch.device) -> Readout:
    """Reads a readout file.

    Raises:
        ProfileError: unreadable, or not the tensors of a readout.
    """
    try:
        tensors = load_file(str(path), device=str(device))
    except (OSError, SafetensorError) as error:
        raise ProfileError(f"Readout {path.name} cannot be read: {error}.") from error
    if set(tensors) != set(NAMES):
        raise ProfileError(f"Readout {path.name} must hold exactly {', '.join(NAMES)}.")
    return Readout({name: tensor.float() for name, tensor in tensors.items()})
