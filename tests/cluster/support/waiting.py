"""Waiting for a cluster: by polling, bounded, and with a story when it takes too long."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

Value = TypeVar("Value")
_NEVER = threading.Event()


def until(
    find: Callable[[], Value | None],
    what: str,
    *,
    seconds: float = 120.0,
    every: float = 0.25,
    story: Callable[[], str] = str,
) -> Value:
    """The first truthy value that `find` returns; AssertionError with the story after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := find()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain until {what}\n{story()}")
        _NEVER.wait(every)
    return found


def pause(seconds: float) -> None:
    """Let time pass, where a test shows that something does not happen."""
    _NEVER.wait(seconds)
