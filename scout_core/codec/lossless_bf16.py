"""Codec ``lossless_bf16``: bit-exact, with the exponents entropy-coded.

A bf16 is split into its exponent byte and a byte of sign and mantissa. Signs and mantissas are as
good as random and sent raw. A channel's exponents cluster around its own scale, so every
(layer, kind, head, channel) has a class, twice its mean exponent, rounded; channels of one class
share a frequency table, which travels. Measured order-0 entropy of the exponents on the bundled
model's caches: 2.73 bits with one table per layer and kind, 2.51 with classes.
NaN and infinity, whose exponent is 255, are refused both ways.

Payload: number of classes u8; for each its first exponent u8, number of exponents less one u8 and
their frequencies u16 (sum 4,096); class of each channel u8 ``[layers, 2, kv_heads, head_dim]``; for
each (layer, kind) its rANS stream's length u32 and the stream, whose rows are the positions of the
channels, ``[kv_heads · head_dim, positions]``; all
sign-and-mantissa bytes in layout order, sign in bit 7.
"""

from __future__ import annotations

import struct
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from scout_core.codec.base import (
    CodecId,
    check_positions,
    checked_kv,
    not_finite,
)
from scout_core.codec.compiled import compiled, default_threads, run_sliced
from scout_core.codec.rans import (
    STATE_BYTES,
    Frequencies,
    RansModels,
    decode_rows,
    encode_rows,
    normalised,
)
from scout_core.errors import CodecError
from scout_core.geometry import KvGeometry

EXPECTED_BITS: Final = 10.6
"""Per element, for size estimates: measured on the bundled model's caches."""
NOT_FINITE_EXPONENT: Final = 255
_LENGTH: Final = struct.Struct("<I")

Octets = NDArray[np.uint8]


class LosslessBf16Codec:
    """Two thirds of ``raw_bf16``'s bytes for the same bits."""

    name = "lossless_bf16"
    codec_id = CodecId.LOSSLESS_BF16
    is_fixed_rate = False

    def encode(self, kv: torch.Tensor) -> bytes:
        """See ``KvCodec.encode``."""
        exact = checked_kv(kv)
        words = exact.view(torch.int16).numpy().view(np.uint16)
        planes, channels = 2 * exact.shape[0], exact.shape[2] * exact.shape[4]
        positions = exact.shape[3]
        by_plane = words.reshape(planes, *words.shape[2:])
        exponents = np.empty((planes, channels, positions), dtype=np.uint8)
        fractions = np.empty(by_plane.shape, dtype=np.uint8)
        threads = default_threads()

        def split_planes(first: int, last: int) -> bool:
            part = slice(first, last)
            largest = _split(by_plane[part], exponents[part], fractions[part])
            return int(largest) < NOT_FINITE_EXPONENT

        if not run_sliced(split_planes, planes, words.nbytes, threads):
            raise not_finite(self.name)
        labels, classes = _classes(exponents)
        frequencies = _frequencies(exponents, classes, labels.size)
        coder = RansModels.of(frequencies)
        streams: list[bytes] = [b""] * planes

        def encode_planes(first: int, last: int) -> bool:
            for plane in range(first, last):
                streams[plane] = encode_rows(exponents[plane], classes[plane], coder)
            return True

        run_sliced(encode_planes, planes, words.nbytes, threads)
        framed = (part for stream in streams for part in (_LENGTH.pack(len(stream)), stream))
        tables = _write_tables(frequencies)
        return b"".join((tables, classes.tobytes(), *framed, fractions.tobytes()))

    def decode(
        self, payload: bytes | memoryview, geometry: KvGeometry, positions: int
    ) -> torch.Tensor:
        """See ``KvCodec.decode``."""
        check_positions(positions)
        planes = 2 * geometry.layers
        channels = (planes, geometry.kv_heads, geometry.head_dim)
        elements = positions * geometry.kv_heads * geometry.head_dim
        if len(payload) < planes * (elements + _LENGTH.size + STATE_BYTES):
            raise CodecError(f"{self.name}: payload too short for {positions} positions.")
        view = memoryview(payload)
        frequencies, cursor = _read_tables(view)
        classes = np.frombuffer(view[cursor : cursor + int(np.prod(channels))], dtype=np.uint8)
        if classes.size != np.prod(channels) or int(classes.max()) >= frequencies.shape[0]:
            raise CodecError(f"{self.name}: a channel's class has no table.")
        streams, cursor = _read_streams(view, cursor + classes.size, planes)
        if len(view) - cursor != planes * elements:
            raise CodecError(f"{self.name}: payload does not end with the mantissas.")
        by_plane = (planes, geometry.kv_heads, positions, geometry.head_dim)
        fractions = np.frombuffer(view[cursor:], dtype=np.uint8).reshape(by_plane)
        kv = torch.empty(geometry.shape(positions), dtype=torch.bfloat16)
        words = kv.view(torch.int16).numpy().view(np.uint16).reshape(by_plane)
        coder = RansModels.of(frequencies)
        models = classes.reshape(planes, -1)

        def decode_planes(first: int, last: int) -> bool:
            for plane in range(first, last):
                exponents = decode_rows(streams[plane], models[plane], positions, coder)
                _join(words[plane], exponents, fractions[plane])
            return True

        run_sliced(decode_planes, planes, words.nbytes, default_threads())
        return kv

    def encoded_bytes(self, geometry: KvGeometry, positions: int) -> int:
        """See ``KvCodec.encoded_bytes``; an expectation."""
        check_positions(positions)
        return round(geometry.elements_per_token * positions * EXPECTED_BITS / 8)


def _classes(exponents: Octets) -> tuple[NDArray[np.int64], Octets]:
    """Twice each channel's rounded mean exponent: the distinct ones, and each channel's index."""
    positions = exponents.shape[2]
    sums = exponents.sum(axis=2, dtype=np.uint32).astype(np.int64)
    doubled = (4 * sums + positions) // (2 * positions)
    if np.unique(doubled).size > 255:
        doubled //= 2
    labels, inverse = np.unique(doubled, return_inverse=True)
    return labels, inverse.reshape(doubled.shape).astype(np.uint8)


def _frequencies(exponents: Octets, classes: Octets, labels: int) -> Frequencies:
    """Frequencies of the exponents of each class, ``[classes, 256]``."""
    counts = np.zeros((labels, 256), dtype=np.int64)
    _count(exponents.reshape(-1, exponents.shape[2]), classes.reshape(-1), counts)
    return np.stack([normalised(row) for row in counts])


def _write_tables(frequencies: Frequencies) -> bytes:
    parts = [bytes([frequencies.shape[0]])]
    for row in frequencies:
        present = np.flatnonzero(row)
        first, last = int(present[0]), int(present[-1])
        parts.append(bytes([first, last - first]))
        parts.append(row[first : last + 1].astype("<u2").tobytes())
    return b"".join(parts)


def _read_tables(view: memoryview) -> tuple[Frequencies, int]:
    """The frequency tables, ``[classes, 256]``, and the cursor behind them."""
    frequencies = np.zeros((view[0], 256), dtype=np.uint16)
    cursor = 1
    for row in frequencies:
        if cursor + 2 > len(view):
            raise CodecError("lossless_bf16: payload is truncated.")
        first, size = view[cursor], view[cursor + 1] + 1
        cursor += 2
        table = np.frombuffer(view[cursor : cursor + 2 * size], dtype=np.uint8)
        if table.size != 2 * size or first + size > NOT_FINITE_EXPONENT:
            raise CodecError("lossless_bf16: an exponent table is not one.")
        row[first : first + size] = table.view("<u2")
        cursor += 2 * size
    return frequencies, cursor


def _read_streams(view: memoryview, cursor: int, planes: int) -> tuple[list[memoryview], int]:
    """The planes' streams, and the cursor behind them."""
    streams: list[memoryview] = []
    for _ in range(planes):
        if cursor + _LENGTH.size > len(view):
            raise CodecError("lossless_bf16: payload is truncated.")
        (length,) = _LENGTH.unpack_from(view, cursor)
        cursor += _LENGTH.size
        streams.append(view[cursor : cursor + length])
        cursor += length
    return streams, cursor


@compiled
def _count(exponents: Octets, classes: Octets, counts: NDArray[np.int64]) -> None:
    """Exponents ``[channels, positions]`` into one of two tables by turns: equal neighbours would
    wait for each other's sum in memory."""
    halves = np.zeros((counts.shape[0], 2, 256), np.uint32)
    for channel in range(exponents.shape[0]):
        tables = halves[classes[channel]]
        for row in range(exponents.shape[1]):
            tables[row & 1, exponents[channel, row]] += np.uint32(1)
    for label in range(counts.shape[0]):
        for exponent in range(256):
            counts[label, exponent] += halves[label, 0, exponent] + halves[label, 1, exponent]


@compiled
def _split(words: NDArray[np.uint16], exponents: Octets, fractions: Octets) -> np.uint8:
    """``[planes, heads, positions, channels]`` into exponents ``[planes, heads · channels,
    positions]`` and fractions; the largest exponent."""
    planes, heads, positions, head_dim = words.shape
    largest = np.uint8(0)
    for plane in range(planes):
        for head in range(heads):
            for row in range(positions):
                for channel in range(head_dim):
                    word = words[plane, head, row, channel]
                    exponent = np.uint8((word >> np.uint16(7)) & np.uint16(0xFF))
                    largest = max(largest, exponent)
                    exponents[plane, head * head_dim + channel, row] = exponent
                    fractions[plane, head, row, channel] = np.uint8(
                        ((word >> np.uint16(8)) & np.uint16(0x80)) | (word & np.uint16(0x7F))
                    )
    return largest


@compiled
def _join(words: NDArray[np.uint16], exponents: Octets, fractions: Octets) -> None:
    """Inverse of ``_split`` for one plane."""
    heads, positions, head_dim = words.shape
    for head in range(heads):
        for row in range(positions):
            for channel in range(head_dim):
                fraction = np.uint16(fractions[head, row, channel])
                exponent = np.uint16(exponents[head * head_dim + channel, row])
                words[head, row, channel] = np.uint16(
                    ((fraction & np.uint16(0x80)) << np.uint16(8))
                    | (exponent << np.uint16(7))
                    | (fraction & np.uint16(0x7F))
                )
