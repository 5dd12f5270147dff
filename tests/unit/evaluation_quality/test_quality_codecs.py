"""Which codecs modes are measured with: those that an edge sends, under the names it reports."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from edge_agent.payload import GRADED_TRANSFORM
from scout_core.codec.bases import coding_identity
from scout_core.codec.registry import codec_for_mode
from scout_core.codec.transform import TransformCodec
from scout_core.errors import CodecError, ModeUnavailableError
from scout_core.evaluation.quality_codecs import (
    contender_of,
    sent_codecs,
)
from scout_core.modes import Mode
from tests.support.synthetic_caches import synthetic_basis

BASIS = replace(synthetic_basis(), int4_level=5, graded_level=7)
KV_MODES = (Mode.KV_BF16, Mode.KV_INT8, Mode.KV_INT4, Mode.KV_SELECT)


def test_without_a_transform_every_mode_has_its_own_codec() -> None:
    for mode in KV_MODES:
        assert sent_codecs(mode, None) == (codec_for_mode(mode).name,)


def test_with_a_transform_the_modes_that_use_it_are_named_as_the_edge_names_them() -> None:
    flat, graded = TransformCodec.name, GRADED_TRANSFORM
    assert sent_codecs(Mode.KV_INT4, BASIS) == (flat, graded)
    assert sent_codecs(Mode.KV_SELECT, BASIS) == (graded,)
    assert sent_codecs(Mode.KV_INT8, BASIS) == ("int8_groups",)


def test_grades_that_save_nothing_are_not_sent() -> None:
    even = replace(BASIS, graded_level=BASIS.int4_level)
    assert sent_codecs(Mode.KV_INT4, even) == sent_codecs(Mode.KV_SELECT, even) == ("transform",)


def test_scout_mode_has_no_codec() -> None:
    with pytest.raises(ModeUnavailableError):
        sent_codecs(Mode.SCOUT, BASIS)


def test_a_codec_is_used_at_the_level_that_senders_use() -> None:
    names = {contender_of(codec, BASIS).name for codec in sent_codecs(Mode.KV_INT4, BASIS)}
    assert names == {"transform_05", "transform_graded_07"}
    with pytest.raises(CodecError, match="needs a transform basis"):
        contender_of("transform", None)


def test_another_basis_or_level_is_another_measurement() -> None:
    others = (
        None,
        BASIS,
        replace(BASIS, int4_level=4),
        replace(BASIS, graded_level=8),
        replace(BASIS, theta=20_000.0),
    )
    found = sorted(coding_identity(basis) for basis in others)
    assert all(first != second for first, second in pairwise(found))
    assert coding_identity(None) == "plain groups"
    assert coding_identity(BASIS) == coding_identity(replace(BASIS))
