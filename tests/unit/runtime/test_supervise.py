from __future__ import annotations

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from finetune_operator.runtime.lease import NotLeadingError
from finetune_operator.runtime.queue import Backoff
from finetune_operator.runtime.supervise import Supervisor
from finetune_operator.runtime.workers import TransientError

QUICK = Backoff(first=0.001, most=0.002)


@pytest.mark.parametrize(
    "error",
    [
        TransientError("503"),
        PermissionError("403"),
        TimeoutError(),
        NotLeadingError(),
        ExceptionGroup("x", [OSError()]),
    ],
)
async def test_work_that_fails_is_done_again_until_it_is_done(error: Exception) -> None:
    failed: list[str] = []
    tries = 0

    async def work() -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise error

    with capture_logs() as logs:
        await Supervisor(time.monotonic, failed.append, QUICK).until_done("resync", work)
    assert failed == ["resync"] * 3
    assert [line["event"] for line in logs] == ["task_failed"] * 3


async def test_pauses_grow_until_the_work_has_run_for_a_while() -> None:
    now, ran = 0.0, [0.0, 0.0, 0.0, 1000.0]
    with capture_logs() as logs:

        async def work() -> None:
            nonlocal now
            if ran:
                now += ran.pop(0)
                raise OSError("gone")

        await Supervisor(lambda: now, lambda _: None, Backoff(first=0.01, jitter=0)).until_done("scraping", work)
    assert [line["pause"] for line in logs] == [0.01, 0.02, 0.04, 0.01]


async def test_work_that_is_cancelled_ends() -> None:
    running = asyncio.create_task(
        Supervisor(time.monotonic, lambda _: None, QUICK).until_done("workers", asyncio.Event().wait)  # type: ignore[arg-type]
    )
    await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
