"""Grades of the transform codec: what they change, what they cost, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from scout_core.codec import integer_product
from scout_core.codec.compiled import at_most_threads
from scout_core.codec.rans import NOT_CODED
from scout_core.codec.transform import TransformCodec
from scout_core.codec.transform_basis import CLASSES
from scout_core.codec.transform_plan import LOWEST_SENT_CLASS, TransformPlan
from scout_core.codec.transform_runs import (
    COARSEST_GRADE,
    FINEST_GRADE,
    TileRuns,
    checked_grades,
    packed_grades,
    unpacked_grades,
)
from scout_core.errors import CodecError
from tests.support.synthetic_caches import GEOMETRY, synthetic_basis, synthetic_cache

BASIS = synthetic_basis()
GRADE = st.integers(FINEST_GRADE, COARSEST_GRADE)

Grades = Sequence[int] | NDArray[np.integer] | None


def relative_error(kv: torch.Tensor, decoded: torch.Tensor) -> float:
    return float((decoded.float() - kv.float()).norm() / kv.float().norm())


def coded(level: int, kv: torch.Tensor, first: int, grades: Grades = None) -> torch.Tensor:
    positions = range(first, first + kv.shape[3])
    payload = TransformCodec.at(BASIS, level, positions, grades).encode(kv)
    return TransformCodec.at(BASIS, 0, positions).decode(payload, GEOMETRY, kv.shape[3])


@given(st.lists(GRADE, max_size=40))
def test_grades_survive_their_bytes(grades: list[int]) -> None:
    checked = checked_grades(grades, len(grades))
    packed = packed_grades(checked)
    assert len(packed) == (len(grades) + 1) // 2
    assert unpacked_grades(packed, len(grades)).tolist() == grades


@given(st.lists(GRADE, min_size=1, max_size=40), st.data())
def test_a_tile_is_ordered_by_grade_and_then_as_it_was(
    grades: list[int], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(grades) - 1))
    runs = TileRuns.of(slice(start, len(grades)), checked_grades(grades, len(grades)))
    expected = sorted(range(start, len(grades)), key=lambda place: (grades[place], place))
    assert runs.order.tolist() == expected
    assert np.repeat(runs.grades, np.diff(runs.bounds)).tolist() == [grades[i] for i in expected]
    assert (np.diff(runs.grades) > 0).all()


def test_a_grade_takes_as_many_classes_as_levels_would() -> None:
    for level in (0, 9, 20):
        plan = TransformPlan.of(BASIS, level)
        for grade in (-6, -1, 0, 5):
            if 0 <= level + grade < 32:
                other = TransformPlan.of(BASIS, level + grade)
                for stream in range(plan.streams):
                    mine = plan.models(stream, np.array([grade]))
                    theirs = other.models(stream, np.array([0]))
                    assert np.array_equal(mine, theirs)


def test_what_a_grade_needs_all_finer_grades_have_and_classes_are_bounded() -> None:
    plan = TransformPlan.of(BASIS, 0)
    models = plan.models(0, np.array([-8, 0, 7]))
    assert int(models[models != NOT_CODED].max()) < CLASSES
    assert int(models.min()) >= LOWEST_SENT_CLASS
    missing = models == NOT_CODED
    assert (missing[:, 1:] >= missing[:, :-1]).all()
    assert not missing[:, 0].any()


@pytest.mark.parametrize("grade", [-6, -1, 0, 4])
def test_positions_of_one_grade_are_coded_as_at_that_level(grade: int) -> None:
    kv = synthetic_cache(range(10, 70), 70)
    graded = relative_error(kv, coded(12, kv, 10, [grade] * 60))
    assert graded == pytest.approx(relative_error(kv, coded(12 + grade, kv, 10)), rel=0.03)


def test_each_position_is_as_exact_as_its_grade() -> None:
    kv = synthetic_cache(range(10, 340), 71)
    grades = np.array([-6, 0, 6] * 110)
    error = (coded(12, kv, 10, grades).float() - kv.float()).square().sum(dim=(0, 1, 2, 4))
    fine, middle, coarse = (error[torch.tensor(grades == grade)].mean() for grade in (-6, 0, 6))
    assert 2 * fine < middle < coarse / 2


def test_rows_sent_in_another_way_are_not_sent_twice() -> None:
    kv = synthetic_cache(range(40), 77)
    fine = TransformCodec.at(BASIS, 12, range(40), [-8, -8, -8, -8] + [0] * 36).encode(kv)
    coarse = TransformCodec.at(BASIS, 12, range(40), [7, 7, 7, 7] + [0] * 36).encode(kv)
    assert fine == coarse
    assert fine[9:11] == b"\xff\xff"


def test_no_grades_cost_no_byte_and_all_of_nothing_a_nibble_each() -> None:
    kv = synthetic_cache(range(10, 55), 72)
    flat = TransformCodec.at(BASIS, 12, range(10, 55)).encode(kv)
    zeros = TransformCodec.at(BASIS, 12, range(10, 55), [0] * 45).encode(kv)
    assert len(zeros) == len(flat) + 23
    assert zeros[9 + 23 :] == flat[9:]


def test_threads_and_hosts_without_integer_products_change_no_bit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kv = synthetic_cache(range(300), 73)
    grades = np.random.default_rng(0).integers(FINEST_GRADE, COARSEST_GRADE + 1, 300)
    codec = TransformCodec.at(BASIS, 10, range(300), grades)
    payload = codec.encode(kv)
    decoded = codec.decode(payload, GEOMETRY, 300)
    with at_most_threads(1):
        assert codec.encode(kv) == payload
        assert torch.equal(codec.decode(payload, GEOMETRY, 300), decoded)
    monkeypatch.setattr(integer_product, "_has_dot_products", lambda: False)
    assert torch.equal(codec.decode(payload, GEOMETRY, 300), decoded)


@given(st.integers(0, 31), st.lists(GRADE, min_size=1, max_size=20), st.integers(0, 2**32 - 1))
def test_any_graded_payload_decodes_alike_wherever_and_is_refused_if_cut(
    level: int, grades: list[int], seed: int
) -> None:
    kv = synthetic_cache(range(len(grades)), seed)
    codec = TransformCodec.at(BASIS, level, range(len(grades)), grades)
    payload = codec.encode(kv)
    decoded = TransformCodec.at(BASIS, 0, range(len(grades))).decode(payload, GEOMETRY, len(grades))
    assert torch.equal(codec.decode(payload, GEOMETRY, len(grades)), decoded)
    for cut in (1, len(payload) // 2, len(payload) - 1):
        with pytest.raises(CodecError):
            codec.decode(payload[:cut], GEOMETRY, len(grades))


def test_outliers_survive_as_escapes_at_their_grade() -> None:
    kv = synthetic_cache(range(10, 50), 74)
    kv[2, 0, 1, 20], kv[1, 1, 0, 33] = 500.0, -700.0
    decoded = coded(2, kv, 10, [-2, -6] * 20)
    assert relative_error(kv, decoded) < 0.02


def test_expected_bytes_of_graded_blocks_follow_the_grades() -> None:
    kv = synthetic_cache(range(4, 132), 75)
    for grades in ([-4] * 128, [0] * 128, [-4, 4] * 64):
        codec = TransformCodec.at(BASIS, 12, range(4, 132), grades)
        assert codec.encoded_bytes(GEOMETRY, 128) == pytest.approx(len(codec.encode(kv)), rel=0.15)


def test_wrong_grades_are_refused() -> None:
    for wrong in ([0] * 9, [0] * 11, [0] * 9 + [8], [0] * 9 + [-9], [300] * 10):
        with pytest.raises(CodecError):
            TransformCodec.at(BASIS, 4, range(10), wrong)
    with pytest.raises(CodecError, match="fixed"):
        TransformCodec.at(BASIS, 51, range(10), [0] * 10)


def test_grades_where_there_can_be_none_are_refused() -> None:
    kv = synthetic_cache(range(5), 76)
    fixed = TransformCodec.at(BASIS, 51, range(5)).encode(kv)
    graded = bytearray(TransformCodec.at(BASIS, 4, range(5), [0] * 5).encode(kv))
    codec = TransformCodec.at(BASIS, 4, range(5))
    with pytest.raises(CodecError):
        codec.decode(bytes((fixed[0] | 0x80,)) + fixed[1:], GEOMETRY, 5)
    with pytest.raises(CodecError):
        codec.decode(bytes(graded[:11]), GEOMETRY, 5)
    graded[11] |= 0x10  # of a sixth position
    with pytest.raises(CodecError):
        codec.decode(bytes(graded), GEOMETRY, 5)
