"""What the cloud admits, and the memory and places it promises at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from cloud_server.admission import MAX_DEADLINE_S, check_open, payload_limit_bytes
from cloud_server.host import ModelHost
from cloud_server.settings import CloudSettings
from scout_core.daemon.contexts import ContextStore
from scout_core.daemon.settings import load_settings
from scout_core.daemon.worker import TorchWorker
from scout_core.engine import Engine
from scout_core.errors import (
    ContextTooLongError,
    DeadlineError,
    DrainingError,
    EmptyInputError,
    FingerprintMismatchError,
    OverloadedError,
    RetentionError,
    SamplingError,
    ScoutError,
)
from scout_core.modes import Mode, ModelFingerprint
from scout_core.protocol.opening import OpenParameters
from scout_core.sampling import SamplingOptions
from tests.support.raw_session import opening
from tests.support.tiny_models import save_tiny_model, tiny_engine

SETTINGS = load_settings(CloudSettings, None, {})
TOKENS = tuple(range(10, 60))
HostOf = Callable[[Engine], ModelHost]


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    return tiny_engine(save_tiny_model(tmp_path_factory.mktemp("model")))


def host_with(engine: Engine, **limits: Any) -> ModelHost:
    values: dict[str, Any] = {"max_requests": 2, "payload_budget_bytes": 1_000} | limits
    return ModelHost(engine, TorchWorker(), ContextStore(1 << 20, 60.0), **values)


@pytest.fixture
def host(engine: Engine) -> ModelHost:
    return host_with(engine)


def test_proper_request_is_admitted(host: ModelHost) -> None:
    for mode in Mode:
        check_open(opening(host, TOKENS, mode=mode), host, SETTINGS)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"model_fingerprint": ModelFingerprint("")}, FingerprintMismatchError),
        ({"question": ""}, EmptyInputError),
        ({"context_tokens": 0}, EmptyInputError),
        ({"context_tokens": 513}, ContextTooLongError),
        ({"retention": 0.0}, RetentionError),
        ({"retention": 1.001}, RetentionError),
        ({"retention": float("nan")}, RetentionError),
        ({"deadline_s": MAX_DEADLINE_S + 1}, DeadlineError),
        ({"deadline_s": float("nan")}, DeadlineError),
        ({"sampling": SamplingOptions(max_tokens=513)}, SamplingError),
    ],
)
def test_impossible_request_is_refused(
    changes: dict[str, Any], error: type[ScoutError], host: ModelHost
) -> None:
    with pytest.raises(error):
        check_open(opening(host, TOKENS, **changes), host, SETTINGS)


def test_late_resume_is_admitted_though_its_deadline_has_passed(host: ModelHost) -> None:
    check_open(opening(host, TOKENS, deadline_s=-20.0), host, SETTINGS)


def test_payload_limit_holds_every_mode_that_the_session_may_switch_to(host: ModelHost) -> None:
    def limit(parameters: OpenParameters) -> int:
        return payload_limit_bytes(parameters, host)

    scout = opening(host, TOKENS)
    kv_bf16 = replace(scout, mode=Mode.KV_BF16)
    positions = len(TOKENS) + len(host.engine.prompt.head_tokens)
    assert limit(kv_bf16) > host.engine.geometry.bf16_bytes(positions) + 4 * len(TOKENS)
    assert limit(scout) < limit(kv_bf16)
    assert limit(replace(scout, mode=Mode.KV_INT4)) == limit(kv_bf16)


def test_places_are_limited_and_given_back(host: ModelHost) -> None:
    first, second = host.reserve(1), host.reserve(1)
    assert not host.idle.is_set()
    with pytest.raises(OverloadedError, match="the limit") as caught:
        host.reserve(1)
    assert float(caught.value.details["retry_after_s"]) > 0
    first.release()
    first.release()
    assert host.sessions_in_progress == 1
    host.reserve(1).release()
    second.release()
    assert host.idle.is_set()
    assert (host.sessions_in_progress, host.reserved_payload_bytes) == (0, 0)


def test_payload_memory_is_promised_once(engine: Engine) -> None:
    host = host_with(engine, max_requests=10)
    held = host.reserve(600)
    with pytest.raises(OverloadedError, match="payload_budget_bytes"):
        host.reserve(401)
    assert host.sessions_in_progress == 1
    host.reserve(400).release()
    held.release()


def test_draining_host_admits_nobody(host: ModelHost) -> None:
    host.draining = True
    with pytest.raises(DrainingError, match="shutting down"):
        host.admit()
