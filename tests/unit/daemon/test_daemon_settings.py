"""Settings come from file, environment and flags, in that order; a mistake says where it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloud_server.settings import CloudSettings
from edge_agent.settings import EdgeSettings
from scout_core.daemon.settings import DaemonSettings, load_settings
from scout_core.errors import SettingsError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cloud.toml"


def test_defaults_need_nothing() -> None:
    assert load_settings(CloudSettings, None, {}).listen == "127.0.0.1:7071"
    assert load_settings(EdgeSettings, None, {}).cloud == "127.0.0.1:7071"


def test_flag_beats_environment_and_environment_beats_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text('server_id = "file"\nmax_requests = 1\nmax_answer_tokens = 1\n')
    monkeypatch.setenv("SCOUT_CLOUD_MAX_REQUESTS", "2")
    monkeypatch.setenv("SCOUT_CLOUD_MAX_ANSWER_TOKENS", "2")
    flags = {"max_answer_tokens": "3", "server_id": None}
    settings = load_settings(CloudSettings, file, flags)
    assert settings.server_id == "file"
    assert settings.max_requests == 2
    assert settings.max_answer_tokens == 3


def test_settings_are_frozen() -> None:
    settings = load_settings(CloudSettings, None, {})
    with pytest.raises(ValueError, match="frozen"):
        settings.max_requests = 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("\n\nmax_requests = 'many'", ["line 3", "'max_requests'", "valid integer", '"many"']),
        ("max_requests = 0", ["line 1", "'max_requests'", "greater than or equal to 1", "found 0"]),
        ("max_request = 3", ["line 1", "unknown key 'max_request'", "spelling"]),
        ("listen = '127.0.0.1'", ["line 1", "'listen'", "pattern"]),
        ("[server]\nmax_requests = 3", ["line 1", "unknown key 'server'"]),
        ("max_requests = [1]", ["line 1", "'max_requests'", "found [1]"]),
        ("a = 1\nb = 2", ["line 1", "unknown key 'a'", "line 2", "unknown key 'b'"]),
        ("max_requests = \n", ["not valid TOML", "line 1"]),
        ("max_requests = 1\nmax_requests = 2\n", ["not valid TOML", "line 2"]),
    ],
)
def test_mistake_in_the_file_is_named_with_key_line_and_expectation(
    text: str, says: list[str], file: Path
) -> None:
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(CloudSettings, file, {})
    for part in (*says, str(file)):
        assert part in caught.value.message


def test_file_that_is_not_there_is_named(file: Path) -> None:
    with pytest.raises(SettingsError, match=r"Cannot read the configuration file .*cloud\.toml"):
        load_settings(CloudSettings, file, {})


def test_file_that_is_no_text_is_named(file: Path) -> None:
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SettingsError, match="Cannot read"):
        load_settings(CloudSettings, file, {})


def test_misspelt_environment_variable_is_an_error_and_names_the_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCOUT_CLOUD_MAX_REQUEST", "2")
    with pytest.raises(SettingsError, match="SCOUT_CLOUD_MAX_REQUEST is not a setting") as caught:
        load_settings(CloudSettings, None, {})
    assert "SCOUT_CLOUD_MAX_REQUESTS" in caught.value.message


def test_variables_of_the_other_daemon_and_of_nobody_are_let_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCOUT_EDGE_MAX_REQUESTS", "2")
    monkeypatch.setenv("SCOUT_SOMETHING", "2")
    assert load_settings(CloudSettings, None, {}).max_requests == 64


def test_wrong_environment_value_is_explained_without_a_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SCOUT_CLOUD_MAX_REQUESTS", "many")
    with pytest.raises(SettingsError, match=r"'max_requests': .*integer") as caught:
        load_settings(CloudSettings, None, {})
    assert "line" not in caught.value.message


@pytest.mark.parametrize("settings_class", [CloudSettings, EdgeSettings])
def test_every_setting_says_what_it_is(settings_class: type[DaemonSettings]) -> None:
    for name, field in settings_class.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name
