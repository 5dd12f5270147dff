"""The peers of the codec study and its speed rows, on synthetic caches."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from scout_core.codec.compiled import cores
from scout_core.codec.registry import CODECS, codec_by_name
from scout_core.codec.transform import TransformCodec
from scout_core.errors import CodecError
from scout_core.evaluation.codec_coded import Contender, ExactCache
from scout_core.evaluation.codec_contenders import contenders
from scout_core.evaluation.codec_speed import speed_rows
from scout_core.evaluation.codec_study import windows
from tests.support.synthetic_caches import synthetic_basis, synthetic_cache

GENERATOR = torch.Generator().manual_seed(3)
KV = torch.randn(6, 2, 2, 90, 64, generator=GENERATOR).cumsum(dim=3).to(torch.bfloat16)
CACHE = ExactCache(KV, 0)
ALL = tuple(contenders(None, thorough=True))


@pytest.mark.parametrize("contender", ALL, ids=lambda contender: contender.name)
def test_every_contender_returns_a_cache_like_its_input(contender: Contender) -> None:
    coded = contender.code(CACHE)
    assert coded.decoded.shape == KV.shape
    assert coded.decoded.dtype == torch.bfloat16
    assert 0 < coded.payload_bytes <= KV.nbytes
    error = (coded.decoded.float() - KV.float()).norm() / KV.float().norm()
    assert float(error) < 0.5


def test_graded_levels_need_attention_and_say_so() -> None:
    kv = synthetic_cache(range(4, 94), 5)
    attention = np.geomspace(1e-6, 1, 90)
    every = contenders(synthetic_basis(), thorough=False)
    asking = [contender for contender in every if contender.needs_attention]
    assert {contender.family for contender in asking} == {"transform_graded"}
    for contender in asking:
        with pytest.raises(CodecError, match="attention"):
            contender.code(ExactCache(kv, 4))
    coded = asking[0].code(ExactCache(kv, 4, attention))
    errors = (coded.decoded.float() - kv.float()).square().mean(dim=(0, 1, 2, 4))
    assert 2 * float(errors[-20:].mean()) < float(errors[:20].mean())


def test_a_selection_is_coded_at_its_own_positions() -> None:
    basis, selected = synthetic_basis(), list(range(4, 184, 2))
    kv = synthetic_cache(selected, 5)
    apart, adjacent = ExactCache(kv, 4, selected=np.array(selected)), ExactCache(kv, 4)
    found = {contender.name: contender for contender in contenders(basis, thorough=True)}
    coder = found["transform_06"]
    bound = TransformCodec.at(basis, 6, selected)
    expected = bound.decode(bound.encode(kv), basis.geometry, len(selected))
    assert torch.equal(coder.code(apart).decoded, expected)
    assert not torch.equal(coder.code(adjacent).decoded, expected)
    kvtc = next(contender for name, contender in found.items() if name.startswith("kvtc_like"))
    with pytest.raises(CodecError, match="no selections"):
        kvtc.code(apart)


def test_graded_levels_below_zero_are_finer_than_the_finest() -> None:
    kv = synthetic_cache(range(4, 94), 5)
    cache = ExactCache(kv, 4, np.geomspace(1e-6, 1, 90))
    every = {
        contender.name: contender for contender in contenders(synthetic_basis(), thorough=True)
    }
    coded = [every[f"transform_graded_{name}"].code(cache) for name in ("-4", "-2", "00", "02")]
    errors = [float((one.decoded.float() - kv.float()).square().mean()) for one in coded]
    assert errors == sorted(errors)
    sizes = [one.payload_bytes for one in coded]
    assert sizes == sorted(sizes, reverse=True)


def test_names_are_unique_and_both_origins_present() -> None:
    everything = tuple(contenders(synthetic_basis(), thorough=True))
    assert len({contender.name for contender in everything}) == len(everything)
    assert {contender.origin for contender in everything} == {"ours", "peer"}


def test_a_run_that_is_not_thorough_compares_some_of_the_same() -> None:
    few = {contender.name for contender in contenders(synthetic_basis(), thorough=False)}
    every = {contender.name for contender in contenders(synthetic_basis(), thorough=True)}
    assert few < every


def test_peers_say_in_their_names_that_they_are_like_the_published_ones() -> None:
    published = ("cachegen", "kivi", "kvtc")
    names = [contender.name for contender in contenders(synthetic_basis(), thorough=False)]
    for system in published:
        own = [name for name in names if name.startswith(system)]
        assert own
        assert all(name.startswith(f"{system}_like") for name in own)


def test_counting_tables_costs_the_cachegen_like_peer_bytes_and_changes_nothing_else() -> None:
    by_name = {contender.name: contender for contender in ALL}
    counted = by_name["cachegen_like_0.5"].code(CACHE)
    free = by_name["cachegen_like_0.5_tables_free"].code(CACHE)
    assert torch.equal(counted.decoded, free.decoded)
    assert counted.payload_bytes > free.payload_bytes


def test_plain_int4_takes_five_bits_an_element() -> None:
    by_name = {contender.name: contender for contender in ALL}
    assert by_name["plain_int4"].code(CACHE).payload_bytes * 8 == 5 * KV.numel()


def test_speed_rows_measure_every_codec_alone_and_on_all_cores_beside_a_copy() -> None:
    rows = list(speed_rows(KV, CODECS))
    measured = [(row.codec, row.threads) for row in rows]
    assert measured == [
        (codec.name, threads) for codec in CODECS for threads in sorted({1, cores()})
    ]
    assert all(min(row.encode_gb_s, row.decode_gb_s, row.copy_gb_s) > 0 for row in rows)


def test_coding_pays_below_a_rate_that_raw_bytes_never_reach() -> None:
    raw = speed_rows(KV, [codec_by_name("raw_bf16")])
    coded = speed_rows(KV, [codec_by_name("int4_groups")])
    assert all(row.pays_below_gbit_s == 0 for row in raw)
    assert all(row.pays_below_gbit_s > 0 for row in coded)


def test_windows_are_consecutive_and_whole() -> None:
    texts = windows(range(100), 20, 5, limit=3)
    assert [(text.prefix[0], text.tail[-1]) for text in texts] == [(0, 24), (25, 49), (50, 74)]
    assert windows(range(24), 20, 5, limit=3) == ()
