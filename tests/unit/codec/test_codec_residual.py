"""bf16 is int8 plus a residual: bit-exact, as defined, and nothing else is taken for one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from scout_core.codec import residual_reference
from scout_core.codec.embedded_bf16 import EMBEDDED_BF16, is_above, refinement, refinement_bytes
from scout_core.codec.group_layout import GroupLayout, GroupSections, Words
from scout_core.codec.groups import INT4_GROUPS, INT8_GROUPS
from scout_core.codec.raw_bf16 import RawBf16Codec
from scout_core.codec.residual import WORD_BYTES, ResidualClasses
from scout_core.errors import CodecError
from scout_core.geometry import KvGeometry


def cache_of(bits: Words) -> torch.Tensor:
    return torch.from_numpy(bits.view(np.int16)).view(torch.bfloat16)


def bits_of(kv: torch.Tensor) -> Words:
    return kv.contiguous().view(torch.int16).numpy().view(np.uint16)


def scaled_cache(geometry: KvGeometry, positions: int, scale: float, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    kv = torch.randn(geometry.shape(positions), generator=generator)
    return ((kv + 3 * torch.randn(geometry.head_dim, generator=generator)) * scale).bfloat16()


def codes_of(coarse: np.ndarray, fine: np.ndarray) -> np.ndarray:
    """Codes ``[positions, head_dim]`` of one slab, straight from the README."""
    low = 16 * (coarse & 15).astype(np.int16) + ((fine & 15) ^ 8).astype(np.int16) - 8
    high = 16 * (coarse >> 4).astype(np.int16) + ((fine >> 4) ^ 8).astype(np.int16) - 8
    return np.concatenate((low, high), axis=1)


def defined_residual(kv: torch.Tensor) -> bytes:
    """By the definition in numpy and Python's integers."""
    layers, _, heads, positions, head_dim = kv.shape
    layout = GroupLayout(KvGeometry(layers, heads, head_dim), positions)
    payload = np.frombuffer(INT8_GROUPS.encode(kv), dtype=np.uint8)
    sections = GroupSections.over(payload, layout)
    places = residual_reference.places_of(bits_of(kv))
    row_group = np.repeat(
        np.arange(layout.position_groups),
        np.diff(
            [i * positions // layout.position_groups for i in range(layout.position_groups + 1)]
        ),
    )
    residual = b""
    for layer in range(layers):
        for kind in range(2):
            for head in range(heads):
                slab = layer * heads + head
                if kind == 0:
                    codes = codes_of(sections.key_coarse[slab], sections.key_fine[slab])
                    offsets = sections.key_offsets[slab][row_group]
                    steps = sections.key_steps[slab][row_group]
                else:
                    codes = codes_of(sections.value_coarse[slab], sections.value_fine[slab])
                    width = layout.group_channels
                    offsets = np.repeat(sections.value_offsets[slab], width, axis=1)
                    steps = np.repeat(sections.value_steps[slab], width, axis=1)
                first, counts = residual_reference.classes(codes, offsets, steps)
                ranks = places[layer, kind, head] - first
                assert ((ranks >= 0) & (ranks < counts)).all()
                words = residual_reference.written(ranks.reshape(-1), counts.reshape(-1))
                again = residual_reference.read(words, counts.reshape(-1))
                assert np.array_equal(again, ranks.reshape(-1))
                residual += np.array(words, dtype="<u8").tobytes()
    return residual


@pytest.mark.parametrize(
    ("positions", "head_dim", "scale"),
    [(1, 2, 1.0), (5, 8, 1e-30), (33, 24, 1e30), (34, 64, 1.0), (3, 64, 1e-38), (2, 64, 0.0)],
)
def test_compiled_residual_is_the_defined_one_bit_for_bit(
    positions: int, head_dim: int, scale: float
) -> None:
    kv = scaled_cache(KvGeometry(2, 2, head_dim), positions, scale, seed=positions)
    payload = EMBEDDED_BF16.encode(kv)
    assert payload == INT8_GROUPS.encode(kv) + defined_residual(kv)


@settings(max_examples=150)
@given(
    seed=st.integers(0, 2**32 - 1),
    positions=st.integers(1, 40),
    head_dim=st.sampled_from([2, 6, 64]),
    spread=st.sampled_from([0, 1, 8, 120, 200]),
    centre=st.sampled_from([0.0, -0.0, 1e-39, 1.0, -300.0, 1e30]),
)
def test_every_finite_cache_comes_back_bit_for_bit(
    seed: int, positions: int, head_dim: int, spread: int, centre: float
) -> None:
    """Words of any pattern within some octaves of a centre, both zeros and subnormals included."""
    source = np.random.default_rng(seed)
    geometry = KvGeometry(layers=1, kv_heads=2, head_dim=head_dim)
    shape = geometry.shape(positions)
    exponents = source.integers(0, spread + 1, shape).astype(np.uint16)
    bits = (source.integers(0, 2, shape) << 15 | source.integers(0, 128, shape)).astype(np.uint16)
    around = cache_of(bits | exponents << np.uint16(7)).float() + centre
    kv = around.bfloat16()
    try:
        payload = EMBEDDED_BF16.encode(kv)
    except CodecError:  # a group's range is beyond the int8 level's
        with pytest.raises(CodecError):
            INT8_GROUPS.encode(kv)
        return
    decoded = EMBEDDED_BF16.decode(payload, geometry, positions)
    assert np.array_equal(bits_of(decoded), bits_of(kv))


def test_the_vector_of_the_readme_is_coded_like_that() -> None:
    raw = bytes.fromhex("803f20c0a03e4940373f8ebf0080003cc842ab3e2a3f2abf")
    scales = "a03e20c03c3dc13e0080003cc842ab3e2a3f2abf0000000000000000"
    planes = "000000000ff049000000" + "00f0bc000000"
    residual = "03000000000000000000000000000000"
    geometry = KvGeometry(layers=1, kv_heads=1, head_dim=2)
    kv = RawBf16Codec().decode(raw, geometry, 3)
    payload = bytes.fromhex(scales + planes + residual)
    assert EMBEDDED_BF16.encode(kv) == payload
    assert RawBf16Codec().encode(EMBEDDED_BF16.decode(payload, geometry, 3)) == raw


GEOMETRY = KvGeometry(layers=2, kv_heads=1, head_dim=64)


def test_each_level_begins_the_next_and_the_rest_upgrades_it() -> None:
    kv = scaled_cache(GEOMETRY, 40, 1.0, seed=1)
    held = INT4_GROUPS.encode(kv)
    held += refinement(kv, INT4_GROUPS, INT8_GROUPS)
    assert held == INT8_GROUPS.encode(kv)
    held += refinement(kv, INT8_GROUPS, EMBEDDED_BF16)
    assert held == EMBEDDED_BF16.encode(kv)
    at_once = INT4_GROUPS.encode(kv) + refinement(kv, INT4_GROUPS, EMBEDDED_BF16)
    assert at_once == held
    decoded = EMBEDDED_BF16.decode(held, GEOMETRY, 40)
    assert RawBf16Codec().encode(decoded) == RawBf16Codec().encode(kv)


def test_a_nibble_plane_has_the_announced_size_and_a_residual_about_that() -> None:
    kv = scaled_cache(GEOMETRY, 64, 1.0, seed=2)
    plane = refinement(kv, INT4_GROUPS, INT8_GROUPS)
    assert len(plane) == refinement_bytes(INT4_GROUPS, INT8_GROUPS, GEOMETRY, 64)
    residual = refinement(kv, INT8_GROUPS, EMBEDDED_BF16)
    expected = refinement_bytes(INT8_GROUPS, EMBEDDED_BF16, GEOMETRY, 64)
    assert 0.5 * expected < len(residual) < 1.5 * expected


def test_a_refinement_goes_up_the_ladder_only() -> None:
    kv = scaled_cache(GEOMETRY, 2, 1.0, seed=3)
    for lower, higher in (
        (INT8_GROUPS, INT4_GROUPS),
        (INT8_GROUPS, INT8_GROUPS),
        (EMBEDDED_BF16, INT4_GROUPS),
        (INT4_GROUPS, RawBf16Codec()),
        (RawBf16Codec(), EMBEDDED_BF16),
    ):
        assert not is_above(int(higher.codec_id), int(lower.codec_id))
        with pytest.raises(CodecError, match="send it whole"):
            refinement(kv, lower, higher)


def test_every_truncated_or_lengthened_payload_is_refused() -> None:
    kv = scaled_cache(KvGeometry(1, 1, 8), 5, 1.0, seed=4)
    payload = EMBEDDED_BF16.encode(kv)
    for cut in range(len(payload)):
        with pytest.raises(CodecError):
            EMBEDDED_BF16.decode(payload[:cut], KvGeometry(1, 1, 8), 5)
    with pytest.raises(CodecError, match="takes"):
        EMBEDDED_BF16.decode(payload + bytes(WORD_BYTES), KvGeometry(1, 1, 8), 5)


def test_a_word_beyond_its_classes_is_refused() -> None:
    kv = scaled_cache(KvGeometry(1, 1, 8), 5, 1.0, seed=5)
    payload = EMBEDDED_BF16.encode(kv)
    with pytest.raises(CodecError, match="does not fit"):
        EMBEDDED_BF16.decode(payload[:-WORD_BYTES] + b"\xff" * WORD_BYTES, KvGeometry(1, 1, 8), 5)


def test_codes_that_no_encoder_writes_have_no_residual() -> None:
    kv = scaled_cache(KvGeometry(1, 1, 2), 4, 1.0, seed=6)
    payload = bytearray(EMBEDDED_BF16.encode(kv))
    size = INT8_GROUPS.encoded_bytes(KvGeometry(1, 1, 2), 4)
    layout = GroupLayout(KvGeometry(1, 1, 2), 4)
    payload[size - 2 * layout.positions] = 0x88  # fine nibbles of -8 under a coarse 0
    payload[size - 4 * layout.positions] = 0
    with pytest.raises(CodecError, match="no residual"):
        EMBEDDED_BF16.decode(bytes(payload), KvGeometry(1, 1, 2), 4)


@settings(max_examples=400)
@given(st.data())
def test_class_sizes_agree_with_the_definition_on_any_groups(data: st.DataObject) -> None:
    """Hostile groups too: what one end refuses or counts, the other does."""
    layout = GroupLayout(KvGeometry(1, 1, 2), 1)
    size = layout.coarse_bytes + layout.fine_bytes
    payload = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), dtype=np.uint8)
    payload = payload.copy()
    steps = GroupSections.over(payload, layout)
    for bits in (steps.key_steps, steps.value_steps):
        bits[:] &= 0x7FFF
    first = np.empty(layout.geometry.shape(1), dtype=np.int16)
    try:
        actual = ResidualClasses.of(payload, layout, first)
    except CodecError:
        actual = None
    parts = [
        (
            codes_of(steps.key_coarse[0], steps.key_fine[0]),
            steps.key_offsets[0],
            steps.key_steps[0],
        ),
        (
            codes_of(steps.value_coarse[0], steps.value_fine[0]),
            steps.value_offsets[0],
            steps.value_steps[0],
        ),
    ]
    if not all(residual_reference.are_written_groups(*groups) for _, *groups in parts):
        assert actual is None
        return
    counts = np.stack([residual_reference.classes(*part)[1].reshape(-1) for part in parts])
    if actual is None:
        assert (counts < 1).any()
    else:
        assert np.array_equal(counts, actual.counts.reshape(counts.shape))
