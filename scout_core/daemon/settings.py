"""Loading a daemon's settings: TOML file < environment < flags, unknown keys are errors.

The daemons declare frozen pydantic models; this module merges the sources and turns pydantic's
findings into one sentence with key, line and expected type.
"""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from scout_core.errors import SettingsError

SettingsT = TypeVar("SettingsT", bound="DaemonSettings")


class DaemonSettings(BaseSettings):
    """Base of both daemons' settings. Subclasses set ``env_prefix`` and flat fields with units."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is passed in: ``load_settings`` merges the sources itself."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def load_settings(
    settings_class: type[SettingsT], file: Path | None, flags: Mapping[str, Any]
) -> SettingsT:
    """Settings from all sources.

    Args:
        settings_class: the daemon's model.
        file: TOML file, or None.
        flags: values given on the command line; None values are ignored.

    Raises:
        SettingsError: unreadable file, unknown key, wrong type or range; the message names key,
            line (for a file), what was expected and what was found.
    """
    text = _read(file)
    from_file = _parse(text, file)
    _refuse_unknown_environment(settings_class)
    from_environment = EnvSettingsSource(settings_class)()
    from_flags = {key: value for key, value in flags.items() if value is not None}
    try:
        return settings_class(**{**from_file, **from_environment, **from_flags})
    except ValidationError as error:
        raise SettingsError(_explain(error, text, file)) from None


def _read(file: Path | None) -> str:
    if file is None:
        return ""
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"Cannot read the configuration file {file}: {error}.") from error


def _parse(text: str, file: Path | None) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(f"{file} is not valid TOML: {error}.") from error


def _refuse_unknown_environment(settings_class: type[DaemonSettings]) -> None:
    """A misspelt variable would otherwise be ignored in silence."""
    prefix = str(settings_class.model_config.get("env_prefix", "")).upper()
    known = {prefix + name.upper() for name in (*settings_class.model_fields, "config")}
    for name in os.environ:
        if prefix and name.upper().startswith(prefix) and name.upper() not in known:
            raise SettingsError(
                f"Environment variable {name} is not a setting; known ones are "
                f"{', '.join(sorted(known))}."
            )


def _explain(error: ValidationError, text: str, file: Path | None) -> str:
    sentences: list[str] = []
    for finding in error.errors():
        key = ".".join(str(part) for part in finding["loc"])
        line = _line_of(str(finding["loc"][0]) if finding["loc"] else "", text)
        place = f"{file}, line {line}: " if line is not None else ""
        if finding["type"] == "extra_forbidden":
            sentences.append(f"{place}unknown key '{key}'. Remove it or correct its spelling.")
        elif finding["type"] == "missing":
            sentences.append(f"'{key}' is required: set it in the file, environment or a flag.")
        else:
            found = json.dumps(finding["input"], default=str)
            sentences.append(f"{place}'{key}': {finding['msg']}; found {found}.")
    return " ".join(sentences)


def _line_of(key: str, text: str) -> int | None:
    pattern = re.compile(rf"^\s*\[?{re.escape(key)}\b")
    for number, line in enumerate(text.splitlines(), start=1):
        if pattern.match(line):
            return number
    return None
