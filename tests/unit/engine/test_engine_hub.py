"""A hub that is silent, gone or refuses costs seconds at most, and stored models do not need it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from scout_core.engine.hub import ANSWER_TIMEOUT_S, hub_folder
from scout_core.engine.loading import resolve
from scout_core.engine.options import EngineOptions
from scout_core.errors import UnknownModelError

MODEL = "somebody/some-model"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache folder, empty."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def silent_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub that takes the question and never answers, asked with little patience."""
    over = threading.Event()

    def never(_api: HfApi, _reference: str, *, timeout: float) -> None:
        over.wait(60.0 + timeout)

    monkeypatch.setattr(HfApi, "model_info", never)
    monkeypatch.setattr("scout_core.engine.hub.ANSWER_TIMEOUT_S", 0.05)
    yield
    over.set()


def failing(error: Exception) -> Callable[..., None]:
    def fail(_api: HfApi, _reference: str, *, timeout: float) -> None:
        del timeout
        raise error

    return fail


def stored_snapshot(store: Path) -> Path:
    repository = store / "models--somebody--some-model"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    return snapshot


@pytest.mark.usefixtures("store", "silent_hub")
def test_a_hub_that_never_answers_is_given_up_in_time() -> None:
    started = time.perf_counter()
    with pytest.raises(UnknownModelError, match=r"did not answer within 0\.05 s.*local folder"):
        hub_folder(MODEL)
    assert time.perf_counter() - started < ANSWER_TIMEOUT_S


@pytest.mark.usefixtures("silent_hub")
def test_a_stored_model_is_used_while_the_hub_is_silent(store: Path) -> None:
    snapshot = stored_snapshot(store)
    assert resolve(EngineOptions(MODEL, device="cpu")).folder == snapshot


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize("error", [OSError("no route to host"), RuntimeError("no such proxy")])
def test_whatever_keeps_the_hub_away_is_named(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(HfApi, "model_info", failing(error))
    with pytest.raises(UnknownModelError, match=str(error)) as caught:
        hub_folder(MODEL)
    assert caught.value.details["model"] == MODEL


@pytest.mark.usefixtures("store")
def test_offline_by_choice_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UnknownModelError, match="offline"):
        hub_folder(MODEL)


def test_a_hub_that_answers_is_downloaded_from(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(_api: HfApi, _reference: str, *, timeout: float) -> None:
        del timeout

    def download(_reference: str, *, allow_patterns: list[str], local_files_only: bool) -> str:
        assert "*.safetensors" in allow_patterns
        assert not local_files_only
        return "/the/files"

    monkeypatch.setattr(HfApi, "model_info", known)
    monkeypatch.setattr("scout_core.engine.hub.snapshot_download", download)
    assert hub_folder(MODEL) == Path("/the/files")
