"""The example configurations load with the daemons' real settings."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from cloud_server.settings import CloudSettings
from edge_agent.settings import EdgeSettings
from scout_core.daemon.settings import DaemonSettings, load_settings

CONFIG = Path(__file__).resolve().parents[2] / "deploy" / "config"
EXAMPLES: list[tuple[type[DaemonSettings], str]] = [
    (CloudSettings, "scout-cloud.toml"),
    (EdgeSettings, "scout-edge.toml"),
]


@pytest.mark.parametrize(("settings_class", "name"), EXAMPLES)
def test_example_loads_and_every_key_in_it_takes_effect(
    settings_class: type[DaemonSettings], name: str
) -> None:
    written = tomllib.loads((CONFIG / name).read_text())
    loaded = load_settings(settings_class, CONFIG / name, {}).model_dump(mode="json")
    assert {key: loaded[key] for key in written} == written


@pytest.mark.parametrize(("settings_class", "name"), EXAMPLES)
def test_keys_in_comments_are_settings_too(settings_class: type[DaemonSettings], name: str) -> None:
    lines = (CONFIG / name).read_text().splitlines()
    is_key = re.compile(r"# (cloud_)?tls_\w+ = ")
    commented = [line.removeprefix("# ") for line in lines if is_key.match(line)]
    text = "\n".join(line for line in [*lines, *commented] if not line.startswith("#"))
    assert len(commented) == 3
    assert settings_class(**tomllib.loads(text))
