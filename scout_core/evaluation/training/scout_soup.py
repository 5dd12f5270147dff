"""Scouts made of other scouts: averages of those that began alike, and words beside them.

Owns the arithmetic on adapters and readouts; trains and measures nothing. The sum of two readouts
is a readout again: their channels stand side by side, so nothing changes in what reads the file.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from scout_core.evaluation.training.adapter import averaged
from scout_core.evaluation.training.scout import Scout
from scout_core.selection.readout import PROJECTION, Readout

WORD_SHARES = (0.0, 0.2, 0.35, 0.5)


def averaged_scout(scouts: Sequence[Scout]) -> Scout:
    """The mean of scouts with adapters that began alike, adapters and readouts apart."""
    adapters = [scout.adapter for scout in scouts if scout.adapter is not None]
    names = scouts[0].readout.tensors
    mean = {
        name: torch.stack([s.readout.tensors[name].detach() for s in scouts]).mean(0)
        for name in names
    }
    adapter = averaged([adapter.detached() for adapter in adapters])
    return Scout(adapter, Readout(mean), scouts[0].layers)


def with_words(readout: Readout, words: Readout, share: float) -> Readout:
    """A readout that scores ``readout + share · words``; with no share, ``readout``.

    Args:
        words: reads the lexical channels alone, which are the last of ``readout``'s channels before
            the projected states.
    """
    if share == 0.0:
        return readout
    first, second = readout.tensors, words.tensors
    projected = first[PROJECTION].shape[0]
    before = readout.channels - words.channels

    def placed(tensor: Tensor) -> Tensor:
        """Lexical channels ``[…, words.channels]`` where ``readout`` has them."""
        return torch.nn.functional.pad(tensor, (before, projected))

    def beside(name: str) -> Tensor:
        return torch.cat((first[name], second[name]))

    tensors = {
        PROJECTION: first[PROJECTION],
        "readout.linear": first["readout.linear"] + share * placed(second["readout.linear"]),
        "readout.inner": torch.cat((first["readout.inner"], placed(second["readout.inner"]))),
        "readout.inner_bias": beside("readout.inner_bias"),
        "readout.spread": beside("readout.spread"),
        "readout.mix": torch.block_diag(first["readout.mix"], second["readout.mix"]),
        "readout.mix_bias": beside("readout.mix_bias"),
        "readout.out": torch.cat((first["readout.out"], share * second["readout.out"])),
    }
    return Readout({name: tensor.detach().contiguous() for name, tensor in tensors.items()})
