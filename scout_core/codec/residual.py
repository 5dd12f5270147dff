"""What is missing from an ``int8_groups`` payload to the exact bf16 cache: 2.4 bits an element.

Owns the residual's bytes and their slicing over threads: for each (layer, kind, head) in that order
the line's words, 8 little-endian bytes each. There are no lengths and no tables: the int8 payload
tells how many words there are. What a word is, ``residual_reference`` says; the loops are compiled
for every head_dim.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from scout_core.codec import residual_kernels
from scout_core.codec.compiled import default_threads, run_sliced
from scout_core.codec.filled_bytes import filled_bytes
from scout_core.codec.group_layout import GroupLayout, GroupSections, Octets, Words
from scout_core.codec.residual_reference import are_written_groups
from scout_core.errors import CodecError

WORD_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class ResidualClasses:
    """The class of every element under one int8 payload.

    Attributes:
        first: int16 ``[lines, elements of a line]``, the place of its first number.
        counts: uint16, of its numbers; at least 1.
        ends: int64 ``[lines + 1]``, where each line's words begin, and the last ones end.
    """

    first: NDArray[np.int16]
    counts: Words
    ends: NDArray[np.int64]

    @classmethod
    def of(cls, payload: Octets, layout: GroupLayout, first: NDArray[np.int16]) -> ResidualClasses:
        """Classes under an ``int8_groups`` payload of the right size.

        Args:
            first: fresh int16 array of the cache's shape, which becomes ``first``.

        Raises:
            CodecError: no encoder wrote this payload.
        """
        sections = GroupSections.over(payload, layout)
        lines = 2 * layout.slabs
        shape = (lines, layout.positions, layout.geometry.head_dim)
        places, counts = first.reshape(shape), np.empty(shape, dtype=np.uint16)
        words = np.empty(lines, dtype=np.int64)

        def classify(begin: int, end: int) -> bool:
            for line in range(begin, end):
                parts = _line_parts(sections, layout, line)
                words[line] = residual_kernels.line_classes(*parts, places[line], counts[line])
            return bool((words[begin:end] >= 0).all())

        if not (
            are_written_groups(sections.key_offsets, sections.key_steps)
            and are_written_groups(sections.value_offsets, sections.value_steps)
            and run_sliced(classify, lines, counts.nbytes, default_threads())
        ):
            raise CodecError("These int8 groups are none that an encoder writes: no residual fits.")
        ends = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(words)))
        return cls(places.reshape(lines, -1), counts.reshape(lines, -1), ends)

    @property
    def residual_bytes(self) -> int:
        """Size of the residual."""
        return WORD_BYTES * int(self.ends[-1])


def residual_of(bits: Words, payload: Octets, layout: GroupLayout) -> bytes:
    """The residual of exact ``bits`` ``[layers, 2, kv_heads, positions, head_dim]``.

    Raises:
        CodecError: ``payload`` is not the ``int8_groups`` payload of these bits.
    """
    classes = ResidualClasses.of(payload, layout, np.empty(bits.shape, dtype=np.int16))
    lines = bits.reshape(classes.first.shape)

    def fill(residual: Octets) -> bool:
        words = residual.view("<u8")

        def write(begin: int, end: int) -> bool:
            return all(
                residual_kernels.write_line(
                    lines[line],
                    classes.first[line],
                    classes.counts[line],
                    words[classes.ends[line] : classes.ends[line + 1]],
                )
                for line in range(begin, end)
            )

        return run_sliced(write, len(lines), bits.nbytes, default_threads())

    residual = filled_bytes(classes.residual_bytes, fill)
    if residual is None:
        raise CodecError("The cache is not the one that these int8 groups were made from.")
    return residual


def restore(payload: Octets, residual: Octets, layout: GroupLayout, bits: Words) -> None:
    """Fills ``bits`` with the exact cache.

    Raises:
        CodecError: ``residual`` does not belong to the ``int8_groups`` ``payload``.
    """
    classes = ResidualClasses.of(payload, layout, bits.view(np.int16))
    if residual.size != classes.residual_bytes:
        raise CodecError(
            f"The residual of these int8 groups takes {classes.residual_bytes} bytes, "
            f"got {residual.size}; send exactly what the encoder returned."
        )
    words = residual.copy().view("<u8")  # the residual may lie at any address

    def read(begin: int, end: int) -> bool:
        return all(
            residual_kernels.read_line(
                words[classes.ends[line] : classes.ends[line + 1]],
                classes.counts[line],
                classes.first[line],
            )
            for line in range(begin, end)
        )

    if not run_sliced(read, len(classes.first), bits.nbytes, default_threads()):
        raise CodecError("A residual's word does not fit its classes.")


def _line_parts(
    sections: GroupSections, layout: GroupLayout, line: int
) -> tuple[Words, Words, Octets, Octets]:
    """Offsets, steps, coarse and fine nibbles of a line; lines go by layer, kind and head."""
    heads = layout.geometry.kv_heads
    layer, kind, head = line // (2 * heads), line // heads % 2, line % heads
    slab = layer * heads + head
    if kind == 0:
        return (
            sections.key_offsets[slab],
            sections.key_steps[slab],
            sections.key_coarse[slab],
            sections.key_fine[slab],
        )
    return (
        sections.value_offsets[slab],
        sections.value_steps[slab],
        sections.value_coarse[slab],
        sections.value_fine[slab],
    )
