"""The command line of a daemon: one flag per setting, ``--config FILE`` and ``--print-config``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from scout_core.daemon.heap import keep_freed_memory
from scout_core.daemon.settings import DaemonSettings, load_settings
from scout_core.errors import ScoutError
from scout_core.version import VERSION

WAIT_POLICY: Final = ("OMP_WAIT_POLICY", "PASSIVE")
"""Torch's threads sleep at their barriers. Spinning ones would take the core that the other daemon
of the same host needs: with one core busy, two spinning threads were ten times slower."""

SettingsT = TypeVar("SettingsT", bound=DaemonSettings)


def daemon_command(
    name: str, settings_class: type[SettingsT], serve: Callable[[SettingsT], None]
) -> click.Command:
    """A click command whose flags are the fields of ``settings_class``."""

    def run(config: Path | None, print_config: bool, **flags: Any) -> None:
        try:
            settings = load_settings(settings_class, config, flags)
            if print_config:
                click.echo(json.dumps(settings.model_dump(mode="json"), indent=2))
                return
            keep_freed_memory()
            os.environ.setdefault(*WAIT_POLICY)  # read when torch loads, which is in `serve`
            serve(settings)
        except ScoutError as error:
            raise click.ClickException(f"{error.message} [{error.reason}]") from error

    options: list[click.Parameter] = [
        click.Option(
            ["--config"],
            type=click.Path(path_type=Path, dir_okay=False),
            envvar=f"{settings_class.model_config.get('env_prefix', '')}CONFIG",
            help="TOML file with settings.",
        ),
        click.Option(["--print-config"], is_flag=True, help="Print the settings as JSON and exit."),
        *(
            click.Option([f"--{field.replace('_', '-')}"], help=_help_of(settings_class, field))
            for field in settings_class.model_fields
        ),
    ]
    command = click.Command(name, params=options, callback=run, help=settings_class.__doc__)
    return click.version_option(VERSION, prog_name=name)(command)


def _help_of(settings_class: type[DaemonSettings], field: str) -> str:
    info = settings_class.model_fields[field]
    default = info.get_default(call_default_factory=False)
    shown = "" if default is None else f" [default: {getattr(default, 'value', default)}]"
    return f"{info.description or ''}{shown}"
