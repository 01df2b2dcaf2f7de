"""Structured logs: one JSON object a line on standard output, or coloured lines on a terminal."""

from __future__ import annotations

import os
import sys
from typing import Final

import structlog

from finetune_trainer.contract import RunConfig

CONSOLE: Final = "FINETUNE_LOG_CONSOLE"
"""Set by the supervisor when it writes to a terminal: its workers' output goes through a pipe."""


def on_console() -> bool:
    return bool(os.environ.get(CONSOLE)) or sys.stdout.isatty()


def configure(config: RunConfig | None = None, **context: object) -> None:
    """Set up the process's logging; every event carries the job's identity and `context`."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if on_console() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        logger_factory=structlog.PrintLoggerFactory(file=sys.stdout),
        cache_logger_on_first_use=True,
    )
    if config is not None:
        job = config.job
        identity = {"job": job.name, "namespace": job.namespace, "uid": job.uid, "attempt": config.attempt}
        context = {**identity, **context}
    structlog.contextvars.bind_contextvars(**context)


def logger() -> structlog.typing.FilteringBoundLogger:
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return log
