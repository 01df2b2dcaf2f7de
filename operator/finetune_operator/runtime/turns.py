"""Whose turn it is: what waits is taken one tenant after the other, and no tenant takes up all workers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable
from enum import IntEnum
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_SHARE: Final = 3
"""For each worker that stays free a tenant may have so many: alone it has three quarters of all."""
_LAST_FIRST: Final = 8
"""Every so many keys the lanes are gone through from behind, so that none waits for ever."""


class Lane(IntEnum):
    """In which order a tenant's keys are taken."""

    NEW = 0
    """What waits to be begun: nothing of it is there yet."""
    USUAL = 1
    ROUND = 2
    """What is only looked at in case something was missed."""


def _one_for_all(_: Hashable) -> Hashable:
    return None


def _never(_: Hashable) -> bool:
    return False


class Turns(Generic[K]):
    """Keys that are ready, in the order in which they may be taken.

    Within a tenant and a lane that is the order in which they came. A tenant that has a worker gets another one only
    while enough of them stay free (a dynamic threshold: Choudhury and Hahne, 1998), so that one or two that hang leave
    workers for the rest. A tenant that has none is always served. Taking passes over no more tenants than there are
    workers.
    """

    def __init__(
        self,
        tenant: Callable[[K], Hashable] = _one_for_all,
        workers: int | None = None,
        is_new: Callable[[K], bool] = _never,
    ) -> None:
        self._tenant = tenant
        self._workers = workers
        self._is_new = is_new
        self._waiting: dict[Hashable, tuple[deque[K], ...]] = {}
        self._order: deque[Hashable] = deque()
        self._busy: Counter[Hashable] = Counter()
        self._taken = 0
        self._size = 0
        self._count: Counter[Hashable] = Counter()

    def __len__(self) -> int:
        return self._size

    def append(self, key: K, lane: Lane = Lane.USUAL) -> None:
        """A key is ready; it must not wait or be worked on already. What is new has a lane of its own."""
        tenant = self._tenant(key)
        if tenant not in self._waiting:
            self._waiting[tenant] = tuple(deque() for _ in Lane)
            self._order.append(tenant)
        self._waiting[tenant][Lane.NEW if self._is_new(key) else lane].append(key)
        self._size += 1

    def take(self) -> K | None:
        """The next key, which then counts as worked on until `done`."""
        for _ in range(len(self._order)):
            tenant = self._order.popleft()
            if not self._may_take(tenant):
                self._order.append(tenant)
                continue
            key = self._next_of(tenant)
            if any(self._waiting[tenant]):
                self._order.append(tenant)
            else:
                del self._waiting[tenant], self._count[tenant]
            self._size -= 1
            self._busy[tenant] += 1
            self._taken += 1
            return key
        return None

    def done(self, key: K) -> None:
        tenant = self._tenant(key)
        self._taken -= 1
        self._busy[tenant] -= 1
        if not self._busy[tenant]:
            del self._busy[tenant]

    def clear(self) -> None:
        """Forgets what waits; what is worked on still counts."""
        self._waiting.clear()
        self._count.clear()
        self._order.clear()
        self._size = 0

    def _next_of(self, tenant: Hashable) -> K:
        self._count[tenant] += 1
        lanes = self._waiting[tenant]
        in_order = reversed(lanes) if self._count[tenant] % _LAST_FIRST == 0 else lanes
        return next(lane for lane in in_order if lane).popleft()

    def _may_take(self, tenant: Hashable) -> bool:
        busy = self._busy.get(tenant, 0)
        if self._workers is None or not busy:
            return True
        return busy + 1 <= _SHARE * (self._workers - self._taken - 1)
