"""Whose turn it is: what waits is taken one tenant after the other, and no tenant takes up all workers."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=Hashable)

_SHARE: Final = 3
"""For each worker that stays free a tenant may have so many: alone it has three quarters of all."""


def _one_for_all(_: Hashable) -> Hashable:
    return None


class Turns(Generic[K]):
    """Keys that are ready, in the order in which they may be taken.

    Within a tenant that is the order in which they came. A tenant that has a worker gets another one only while
    enough of them stay free (a dynamic threshold: Choudhury and Hahne, 1998), so that one or two that hang leave
    workers for the rest. A tenant that has none is always served. Taking passes over no more tenants than there are
    workers.
    """

    def __init__(self, tenant: Callable[[K], Hashable] = _one_for_all, workers: int | None = None) -> None:
        self._tenant = tenant
        self._workers = workers
        self._waiting: dict[Hashable, deque[K]] = {}
        self._order: deque[Hashable] = deque()
        self._busy: Counter[Hashable] = Counter()
        self._taken = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, key: K) -> None:
        """A key is ready; it must not wait or be worked on already."""
        tenant = self._tenant(key)
        if tenant not in self._waiting:
            self._waiting[tenant] = deque()
            self._order.append(tenant)
        self._waiting[tenant].append(key)
        self._size += 1

    def take(self) -> K | None:
        """The next key, which then counts as worked on until `done`."""
        for _ in range(len(self._order)):
            tenant = self._order.popleft()
            if not self._may_take(tenant):
                self._order.append(tenant)
                continue
            waiting = self._waiting[tenant]
            key = waiting.popleft()
            if waiting:
                self._order.append(tenant)
            else:
                del self._waiting[tenant]
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
        self._order.clear()
        self._size = 0

    def _may_take(self, tenant: Hashable) -> bool:
        busy = self._busy.get(tenant, 0)
        if self._workers is None or not busy:
            return True
        return busy + 1 <= _SHARE * (self._workers - self._taken - 1)
