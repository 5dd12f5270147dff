"""Twenty thousand damaged payloads per decoder; a million in tests/bench/bench_codec_fuzz.py."""

from __future__ import annotations

import pytest

from tests.bench.bench_codec_fuzz import Target, failures, targets

INPUTS = 20_000


@pytest.mark.timeout(600)  # a few seconds on an idle core; the machine may be busy
@pytest.mark.parametrize("target", list(targets()), ids=lambda target: target.name)
def test_no_damaged_payload_gets_past_a_decoder(target: Target) -> None:
    assert list(failures(target, INPUTS, seed=7)) == []
