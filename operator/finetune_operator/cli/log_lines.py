"""Makes the trainer's structured log lines readable on a terminal; everywhere else they stay JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Final

_KNOWN_ANYWAY: Final = frozenset({"event", "timestamp", "level", "source", "job", "namespace", "uid", "stage", "rank"})


def shower() -> Callable[[str], str]:
    """How to show a line on this standard output."""
    return readable if sys.stdout.isatty() else lambda line: line


def readable(line: str) -> str:
    """`07:52:24 event key=value`; a line that is no log event stays as it is."""
    try:
        event = json.loads(line)
    except ValueError:
        return line
    if not isinstance(event, dict) or "event" not in event:
        return line
    moment = str(event.get("timestamp", ""))[11:19]
    level = str(event.get("level", "info"))
    more = [f"{key}={value}" for key, value in event.items() if key not in _KNOWN_ANYWAY and value is not None]
    words = [moment, level.upper() if level not in ("info", "debug") else "", str(event["event"]), *more]
    return " ".join(word for word in words if word)
