"""Keeps what runs in the background running: a fault in it is told, and it starts again after a while."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog

from finetune_operator.runtime.queue import Backoff
from finetune_operator.runtime.workers import TransientError

_log = structlog.get_logger(__name__)
_PAUSES: Final = Backoff(first=1.0, most=15.0)
_HEALTHY_SECONDS: Final = 120.0
"""Work that ran for so long before it failed had not failed before."""


@dataclass(frozen=True)
class Supervisor:
    """Runs tasks of which none may end the process."""

    clock: Callable[[], float]
    failed: Callable[[str], None]
    """Told the name of a task each time that it failed."""
    pauses: Backoff = _PAUSES

    async def until_done(self, task: str, work: Callable[[], Awaitable[None]]) -> None:
        """Does the work, and does it again as often as it fails; returns when it has been done."""
        failures = 0
        while True:
            began = self.clock()
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - whatever failed must go on: it is told, counted and tried again
                failures = 1 if self.clock() - began > _HEALTHY_SECONDS else failures + 1
                pause = self.pauses.delay(failures, random.random())  # noqa: S311 - it only spreads
                self.failed(task)
                unexpected = None if isinstance(error, TransientError) else error
                _log.warning("task_failed", task=task, error=str(error), pause=round(pause, 3), exc_info=unexpected)
                await asyncio.sleep(pause)
            else:
                return
