"""A pytest plugin that runs, for each mutant, the tests that cover it in a fork of a pytest that has collected them.

mutmut itself starts pytest anew for each mutant, which takes longer than the tests of one. A test that waits may fail
by itself on a busy machine: it kills a mutant only if it then passes without it, and fails with it again. A mutant by
which a test computes or sleeps for ever is killed, too; to wait for a processor is neither.
"""

from __future__ import annotations

import gc
import math
import os
import signal
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from mutmut.mutation import trampoline
from mutmut.state import state
from mutmut.utils.format_utils import mangled_name_from_mutant_name

SURVIVED: Final = 0
KILLED: Final = 1
NO_TESTS: Final = 33
UNDECIDED: Final = 35
TIMEOUT: Final = 36
"""As mutmut numbers them. One that is undecided, which it calls suspicious, has yet to have all its tests."""

PATIENCE: Final = (1.0, math.inf)
"""Seconds of computing that a mutant may take: first those that soon die, then the others with all their tests."""

CPU_SECONDS: Final = 3.0
ASLEEP_SECONDS: Final = 3.0
TIMES: Final = 5
"""A test may take so many times what it took without a mutant, and so many seconds besides."""
SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")


@dataclass(frozen=True)
class Spent:
    """Seconds of computing and of sleeping."""

    cpu: float
    asleep: float

    @classmethod
    def now(cls) -> Spent:
        """Since some moment; on Linux the time spent waiting for a processor is known, and no sleep."""
        cpu = time.process_time()
        waited = int(SCHEDSTAT.read_text().split()[1]) / 1e9 if SCHEDSTAT.exists() else 0.0
        return cls(cpu, time.perf_counter() - cpu - waited)

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.cpu - other.cpu, self.asleep - other.asleep)


@dataclass
class Trials:
    """`settle` is told each mutant's name and its exit code."""

    mutants: Iterable[str]
    processes: int
    settle: Callable[[str, int], None]
    _items: list[pytest.Item] = field(default_factory=list)
    _covering: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    """Numbers of the tests that call a function."""
    _spent: dict[int, Spent] = field(default_factory=dict)
    _undecided: list[str] = field(init=False)
    _kills: Counter[tuple[str, int]] = field(default_factory=Counter)
    """How many mutants of a function, and of a module, a test has killed: it goes first at the next one."""

    def __post_init__(self) -> None:
        self._undecided = list(self.mutants)

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
            began = Spent.now()
            item.ihook.pytest_runtest_protocol(item=item, nextitem=following)
            self._spent[number] = Spent.now() - began
            for function in hit:
                self._covering[function].append(number)
        _activate("")

    def _try_all(self, session: pytest.Session) -> None:
        for patience in PATIENCE:
            mutants, self._undecided = self._undecided, []
            running: dict[int, tuple[str, int]] = {}
            for mutant in mutants:
                if len(running) == self.processes:
                    self._end_one(running)
                pid, told = self._begin(mutant, session, patience)
                running[pid] = mutant, told
            while running:
                self._end_one(running)

    def _end_one(self, running: dict[int, tuple[str, int]]) -> None:
        pid, status = os.wait()
        mutant, told = running.pop(pid)
        killer = os.read(told, 100)
        os.close(told)
        if killer:
            self._kills.update((place, int(killer)) for place in _places(mutant))
        code = os.waitstatus_to_exitcode(status)
        if code == UNDECIDED:
            self._undecided.append(mutant)
        self.settle(mutant, TIMEOUT if code == -signal.SIGPROF else code)

    def _begin(self, mutant: str, session: pytest.Session, patience: float) -> tuple[int, int]:
        """Starts the tests of a mutant: the process, and where it tells which of them has killed it."""
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
            code, killer = self._verdict(mutant, session, patience)
            os.write(tell, killer)
        finally:
            os._exit(code)

    def _verdict(self, mutant: str, session: pytest.Session, patience: float) -> tuple[int, bytes]:
        """An exit code, and the number of the test that has killed the mutant."""
        function, module = _places(mutant)

        def order(number: int) -> tuple[int, int, float]:
            seconds = self._spent[number].cpu + self._spent[number].asleep
            return -self._kills[function, number], -self._kills[module, number], seconds

        if not self._covering[function]:
            return NO_TESTS, b""
        for number in sorted(self._covering[function], key=order):
            if time.process_time() > patience:
                return UNDECIDED, b""
            _limit(self._spent[number])
            if self._fails(number, mutant, session) and (
                self._items[number].get_closest_marker("asyncio") is None
                or (not self._fails(number, "", session) and self._fails(number, mutant, session))
            ):
                return KILLED, str(number).encode()
        return SURVIVED, b""

    def _fails(self, number: int, mutant: str, session: pytest.Session) -> bool:
        _activate(mutant)
        before = session.testsfailed
        item = self._items[number]
        item.ihook.pytest_runtest_protocol(item=item, nextitem=None)
        return session.testsfailed > before


def _places(mutant: str) -> tuple[str, str]:
    """Its function and its module."""
    function = mangled_name_from_mutant_name(mutant)
    return function, function.rpartition(".")[0]


def _activate(mutant: str) -> None:
    """Mutmut looks it up in the environment at each call of a function, which takes half of the tests' time."""
    trampoline.get_mutant_under_test = lambda: mutant


def _limit(usual: Spent) -> None:
    """Ends the process when the next test computes or sleeps for much longer than it does without a mutant."""
    began = Spent.now()

    def look(*_: object) -> None:
        if (Spent.now() - began).asleep > ASLEEP_SECONDS + TIMES * usual.asleep:
            os._exit(TIMEOUT)

    signal.signal(signal.SIGALRM, look)
    signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
    # Its signal ends the process without a handler in Python, which a loop in C might delay.
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS + TIMES * usual.cpu)
