"""Structured logs: JSON lines for machines, a console for people, ``noun_verb`` events.

Both daemons call ``configure_logs`` once; every module takes its logger from structlog.
"""

from __future__ import annotations

import logging
import sys
from enum import Enum

import structlog
from structlog.typing import Processor


class LogFormat(Enum):
    """How log lines are rendered; AUTO is a console on a terminal and JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    CONSOLE = "console"


def configure_logs(daemon: str, level: str, log_format: LogFormat) -> None:
    """Sends logs to stderr. ``level``: debug, info, warning or error."""
    console = log_format is LogFormat.CONSOLE or (
        log_format is LogFormat.AUTO and sys.stderr.isatty()
    )
    renderers: list[Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *renderers,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(daemon=daemon)
