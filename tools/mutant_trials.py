"""A pytest plugin that runs, for each mutant, the tests that cover it in a fork of a pytest that has collected them.

mutmut itself starts pytest anew for each mutant, which takes longer than the tests of one. A test that waits may fail
by itself on a busy machine: it kills a mutant only if it then passes without it, and fails with it again. A mutant that
stops a test for ever is killed, too, once its time is over a second time.
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

import pytest
from mutmut.mutation import trampoline
from mutmut.state import state
from mutmut.utils.format_utils import mangled_name_from_mutant_name

SURVIVED: Final = 0
KILLED: Final = 1
NO_TESTS: Final = 33
TIMEOUT: Final = 36
"""As mutmut numbers them."""

CPU_SECONDS: Final = 3.0
WALL_SECONDS: Final = (10.0, 60.0)
"""Of a test, at the first trial of a mutant and at the second; besides, several times what it took without one."""
TIMES: Final = 10


@dataclass(frozen=True)
class Trial:
    mutant: str
    attempt: int = 0

    @property
    def function(self) -> str:
        return mangled_name_from_mutant_name(self.mutant)


@dataclass
class Trials:
    """`settle` is told each mutant's name and its exit code."""

    mutants: Iterable[str]
    processes: int
    settle: Callable[[str, int], None]
    _items: list[pytest.Item] = field(default_factory=list)
    _covering: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Numbers of the tests that call a function."""
    _seconds: dict[int, float] = field(default_factory=dict)
    _kills: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How many mutants of a function a test has killed: it goes first at the next one."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self._items = session.items
        self._learn_what_covers()
        if not session.testsfailed:
            gc.freeze()
            self._try_all(session)
        return True

    def _learn_what_covers(self) -> None:
        _activate("stats")
        hit = state()._stats  # noqa: SLF001 - where the trampolines note that they were called
        for number, (item, following) in enumerate(zip(self._items, [*self._items[1:], None], strict=True)):
            hit.clear()
            began = time.perf_counter()
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            self._seconds[number] = time.perf_counter() - began
            for function in hit:
                self._covering[function].append(number)
        _activate("")

    def _try_all(self, session: pytest.Session) -> None:
        waiting = deque(Trial(name) for name in sorted(self.mutants))
        running: dict[int, tuple[Trial, int]] = {}
        while waiting or running:
            while waiting and len(running) < self.processes:
                trial = waiting.popleft()
                if self._covering[trial.function]:
                    pid, told = self._begin(trial, session)
                    running[pid] = trial, told
                else:
                    self.settle(trial.mutant, NO_TESTS)
            if running:
                pid, status = os.wait()
                trial, told = running.pop(pid)
                killer = os.read(told, 100)
                os.close(told)
                if killer:
                    self._kills[trial.function, int(killer)] += 1
                code = _verdict(os.waitstatus_to_exitcode(status))
                if code == TIMEOUT and trial.attempt + 1 < len(WALL_SECONDS):
                    waiting.append(Trial(trial.mutant, trial.attempt + 1))
                else:
                    self.settle(trial.mutant, code)

    def _begin(self, trial: Trial, session: pytest.Session) -> tuple[int, int]:
        """Starts the tests of a mutant: the process, and where it tells the number of the test that has killed it."""
        sys.stdout.flush()
        told, tell = os.pipe()
        pid = os.fork()
        if pid:
            os.close(tell)
            return pid, told
        code = KILLED
        try:
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, 1)
            os.dup2(silence, 2)
            killer = self._killer(trial, session)
            code = SURVIVED if killer is None else KILLED
            os.write(tell, b"" if killer is None else str(killer).encode())
        finally:
            os._exit(code)

    def _killer(self, trial: Trial, session: pytest.Session) -> int | None:
        def order(number: int) -> tuple[int, float]:
            return -self._kills[trial.function, number], self._seconds[number]

        for number in sorted(self._covering[trial.function], key=order):
            _limit(self._seconds[number], WALL_SECONDS[trial.attempt])
            if self._fails(number, trial.mutant, session) and (
                self._items[number].get_closest_marker("asyncio") is None
                or (not self._fails(number, "", session) and self._fails(number, trial.mutant, session))
            ):
                return number
        return None

    def _fails(self, number: int, mutant: str, session: pytest.Session) -> bool:
        _activate(mutant)
        before = session.testsfailed
        item = self._items[number]
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        return session.testsfailed > before


def _activate(mutant: str) -> None:
    """Mutmut looks it up in the environment at each call of a function, which takes half of the tests' time."""
    trampoline.get_mutant_under_test = lambda: mutant


def _limit(seconds: float, wall: float) -> None:
    """Ends the process when the next test takes longer, without a handler in Python that a loop in C might delay."""
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS + TIMES * seconds)
    signal.setitimer(signal.ITIMER_REAL, wall + TIMES * seconds)


def _verdict(code: int) -> int:
    return TIMEOUT if -code in {signal.SIGALRM, signal.SIGPROF} else code
