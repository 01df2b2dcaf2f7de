"""Logs: one line an event, JSON for machines or columns for people."""

from __future__ import annotations

import logging
import sys
from typing import Final

import structlog

from finetune_operator.settings import LogFormat, LogLevel

_LIBRARIES: Final = ("kopf", "aiohttp", "asyncio", "urllib3", "kubernetes")


def configure(style: LogFormat, level: LogLevel) -> None:
    """Sends our own logs and the libraries' to stderr, in one format."""
    number = logging.getLevelNamesMapping()[level.upper()]
    shared: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(foreign_pre_chain=shared, processors=[*_renderers(style)]),
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(number)
    for library in _LIBRARIES:
        logging.getLogger(library).setLevel(logging.DEBUG if level is LogLevel.DEBUG else logging.WARNING)
    # It warns that it handles no signals in its thread: the main thread does.
    logging.getLogger("kopf._core.reactor.running").setLevel(logging.ERROR)


def _renderers(style: LogFormat) -> list[structlog.types.Processor]:
    drop = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if style is LogFormat.JSON:
        # As text: frames with their variables would tell secrets.
        return [drop, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    plain = structlog.dev.plain_traceback
    return [drop, structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=plain)]
