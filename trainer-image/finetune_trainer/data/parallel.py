"""Batches of rows go through a function in order, in as many processes as there are cores."""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from typing import Any, ClassVar, Final, TypeVar

from finetune_trainer.data.rows import RawRow
from finetune_trainer.errors import Internal

_ROWS: Final = 1000
_LETTERS: Final = 2_000_000
_ALONE: Final = 8
"""Batches that one process has done before the others could have begun."""

Result = TypeVar("Result")
Work = Callable[[list[RawRow]], Result]


def cores(training_processes: int) -> int:
    """Of the pod: the supervisor divided them among the processes that train; those of the machine when nobody did."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    return int(given) * training_processes if given.isdigit() else len(os.sched_getaffinity(0))


def batches(rows: Iterator[RawRow]) -> Iterator[list[RawRow]]:
    """Rows in lists that do not grow large, however long the rows are."""
    batch: list[RawRow] = []
    letters = 0
    for row in rows:
        batch.append(row)
        letters += _letters(row.values)
        if len(batch) == _ROWS or letters >= _LETTERS:
            yield batch
            batch, letters = [], 0
    if batch:
        yield batch


def in_processes(work: Work[Result], rows: Iterator[RawRow], processes: int) -> Iterator[Result]:
    """What `work` makes of every batch, in their order; a small dataset never leaves this process.

    No more batches are read than the processes have to do. Raises `Internal` when one of them is killed.
    """
    waiting = batches(rows)
    yield from map(work, islice(waiting, _ALONE if processes > 1 else None))
    following = next(waiting, None)
    if following is None:
        return
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(processes, context, initializer=_Worker.begin, initargs=(work,))
    try:
        yield from _bounded(pool, chain([following], waiting), processes * 2)
    except BrokenProcessPool as error:
        raise Internal(
            "a process that tokenises was killed", advice="give the prepare stage more memory in spec.podTemplate"
        ) from error
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


class _Worker:
    """What one of the processes does. A forked one has it without that the tokenizer is pickled."""

    work: ClassVar[Work[Any]]

    @classmethod
    def begin(cls, work: Work[Any]) -> None:
        cls.work = work

    @classmethod
    def do(cls, batch: list[RawRow]) -> Any:
        return cls.work(batch)


def _bounded(pool: ProcessPoolExecutor, waiting: Iterator[list[RawRow]], bound: int) -> Iterator[Result]:
    running: deque[Future[Result]] = deque()
    for batch in waiting:
        running.append(pool.submit(_Worker.do, batch))
        if len(running) >= bound:
            yield running.popleft().result()
    while running:
        yield running.popleft().result()


def _letters(value: Any) -> int:
    """About how much text there is in a row."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_letters, value.values()))
    return sum(map(_letters, value)) if isinstance(value, list) else 0
