"""The keyed work queue: a key is queued once, worked on by one worker at a time, and comes back when asked.

Keys that are ready are taken in turns, one tenant after the other, and no tenant keeps all workers busy.
"""

from __future__ import annotations

import asyncio
import heapq
import random
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

from finetune_operator.runtime.turns import Lane, Turns

K = TypeVar("K", bound=Hashable)


class Clock(Protocol):
    """Time and timers: an event loop, or a test's own."""

    def time(self) -> float: ...

    def call_later(self, delay: float, callback: Callable[[], None], /) -> Timer: ...


class Timer(Protocol):
    def cancel(self) -> None: ...


class QueueMetrics(Protocol):
    """Told of what happens in the queue."""

    def depth(self, size: int) -> None: ...

    def added(self) -> None: ...

    def started(self, waited: float) -> None: ...

    def finished(self, worked: float) -> None: ...

    def retried(self) -> None: ...


class NoMetrics:
    """Nobody is told of what happens in the queue."""

    def depth(self, size: int) -> None: ...

    def added(self) -> None: ...

    def started(self, waited: float) -> None: ...

    def finished(self, worked: float) -> None: ...

    def retried(self) -> None: ...


@dataclass(frozen=True)
class Backoff:
    """Delay before a key that failed is tried again: doubles each time, with jitter so that keys spread."""

    first: float = 0.2
    most: float = 120.0
    jitter: float = 0.25

    def delay(self, failures: int, chance: float) -> float:
        """Seconds after the nth failure (from 1); `chance` in [0, 1) places it within the jitter."""
        plain = min(self.most, self.first * 2.0 ** min(failures - 1, 32))
        return plain * (1 + self.jitter * (2 * chance - 1))


_DEFAULT_BACKOFF: Final = Backoff()
_STALE_DELAYS: Final = 1024


class WorkQueue(Generic[K]):
    """A key that is added while it is worked on is queued again once that work is done."""

    def __init__(
        self,
        clock: Clock,
        metrics: QueueMetrics,
        backoff: Backoff = _DEFAULT_BACKOFF,
        chance: Callable[[], float] = random.random,
        turns: Turns[K] | None = None,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._backoff = backoff
        self._chance = chance
        self._ready: Turns[K] = Turns() if turns is None else turns
        self._queued: dict[K, tuple[float, Lane]] = {}
        self._working: dict[K, float] = {}
        self._delayed: dict[K, float] = {}
        self._resting: set[K] = set()
        self._heap: list[tuple[float, int, K]] = []
        self._sequence = 0
        self._failures: dict[K, int] = {}
        self._timer: Timer | None = None
        self._getters: deque[asyncio.Future[None]] = deque()

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: K, lane: Lane = Lane.USUAL) -> None:
        """Queues a key, unless it is queued already, or rests."""
        if key in self._queued or key in self._resting:
            return
        self._queued[key] = self._clock.time(), lane
        self._metrics.added()
        if key not in self._working:
            self._make_ready(key)

    def add_after(self, key: K, delay: float) -> None:
        """Queues a key after some seconds; of several delays the soonest counts."""
        if delay <= 0:
            self.add(key)
            return
        due = self._clock.time() + delay
        if self._delayed.get(key, due + 1) <= due:
            return
        self._delayed[key] = due
        self._sequence += 1
        heapq.heappush(self._heap, (due, self._sequence, key))
        if len(self._heap) > 2 * len(self._delayed) + _STALE_DELAYS:
            self._heap = [entry for entry in self._heap if self._delayed.get(entry[2]) == entry[0]]
            heapq.heapify(self._heap)
        if self._heap[0][2] == key:
            self._set_timer()

    def rest(self, key: K, delay: float) -> None:
        """Leaves a key that is worked on alone for some seconds, whatever is added meanwhile, unless it is woken."""
        self._queued.pop(key, None)
        self._resting.add(key)
        self.add_after(key, delay)

    def wake(self, key: K, delay: float) -> None:
        """Queues a key, one that rests no later than after some seconds."""
        if key in self._resting and delay > 0:
            self.add_after(key, delay)
        else:
            self._resting.discard(key)
            self.add(key)

    def retry(self, key: K, at_least: float = 0.0) -> float:
        """Queues a key that failed, after its backoff or `at_least` so many seconds; returns the delay."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        delay = max(at_least, self._backoff.delay(failures, self._chance()))
        self._metrics.retried()
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """A key succeeded: its next failure is its first again."""
        self._failures.pop(key, None)

    def drop(self, key: K) -> None:
        """A key is gone for good: it comes back only when it is added again."""
        self._failures.pop(key, None)
        self._delayed.pop(key, None)
        self._resting.discard(key)

    def take(self) -> K | None:
        """The next key, which is then worked on until `done`; nothing when none is ready, or none may be taken."""
        key = self._ready.take()
        if key is None:
            return None
        now = self._clock.time()
        self._metrics.started(now - self._queued.pop(key)[0])
        self._metrics.depth(len(self._ready))
        self._working[key] = now
        return key

    async def get(self) -> K:
        """Waits for the next key, which is then worked on until `done`."""
        while (key := self.take()) is None:
            getter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._getters.append(getter)
            try:
                await getter
            except asyncio.CancelledError:
                self._give_up(getter)
                raise
        return key

    def done(self, key: K) -> None:
        """Work on a key has ended, well or not."""
        self._metrics.finished(self._clock.time() - self._working.pop(key))
        self._ready.done(key)
        if key in self._queued:
            self._make_ready(key)
        elif self._ready:
            self._wake_one()

    def clear(self) -> None:
        """Forgets everything that waits."""
        self._ready.clear()
        self._queued.clear()
        self._delayed.clear()
        self._resting.clear()
        self._heap.clear()
        self._failures.clear()
        self._metrics.depth(0)

    def _make_ready(self, key: K) -> None:
        self._ready.append(key, self._queued[key][1])
        self._metrics.depth(len(self._ready))
        self._wake_one()

    def _wake_one(self) -> None:
        while self._getters:
            getter = self._getters.popleft()
            if not getter.done():
                getter.set_result(None)
                return

    def _give_up(self, getter: asyncio.Future[None]) -> None:
        if getter in self._getters:
            self._getters.remove(getter)
        elif self._ready:
            self._wake_one()

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if self._heap:
            self._timer = self._clock.call_later(max(0.0, self._heap[0][0] - self._clock.time()), self._release_due)

    def _release_due(self) -> None:
        now = self._clock.time()
        while self._heap and self._heap[0][0] <= now:
            due, _, key = heapq.heappop(self._heap)
            if self._delayed.get(key) == due:
                del self._delayed[key]
                self.wake(key, 0)
        self._set_timer()
