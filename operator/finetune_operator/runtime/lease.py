"""Leader election by a coordination.k8s.io Lease.

Safe without clocks that agree: time is only ever measured here, by a monotonic clock, between two
things that this process saw. A leader counts its lease from before it asked for it and stops writing
`renew_deadline` after that; a follower takes the lease over only when it has watched it stand unchanged
for `duration`. The difference between the two is what a request under way may still take.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

_log = structlog.get_logger(__name__)
RELEASED: Final = ""
_RELEASE_SECONDS: Final = 3.0
_RELEASE_PAUSE: Final = 0.1


class NotLeadingError(Exception):
    """The process does not hold the lease (any more), so it must not write."""


class LeaseUnavailableError(Exception):
    """The lease could not be read or written: somebody else was quicker, or the API server is out of reach."""


@dataclass(frozen=True)
class LeaseTimes:
    """Seconds. `duration` - `renew_deadline` must exceed the timeout of a write."""

    duration: float = 15.0
    renew_deadline: float = 10.0
    retry: float = 2.0


@dataclass(frozen=True)
class LeaseState:
    """The Lease as it stands in the API server."""

    holder: str
    duration: float
    transitions: int
    version: str
    """resourceVersion: a write fails when it is not the newest."""


class LeaseApi(Protocol):
    """Reads and writes the Lease; failures are `LeaseUnavailableError`."""

    async def read(self) -> LeaseState | None: ...

    async def create(self, holder: str, duration: float) -> LeaseState: ...

    async def renew(self, held: LeaseState, holder: str, duration: float, *, acquired: bool) -> LeaseState: ...


class Election:
    """Holds the lease as well as it can, and runs what only the leader may do while it does."""

    def __init__(
        self,
        api: LeaseApi,
        identity: str,
        clock: Callable[[], float],
        times: LeaseTimes,
        announce: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._api = api
        self._identity = identity
        self._clock = clock
        self._times = times
        self._announce = announce
        self._seen: LeaseState | None = None
        self._seen_at = 0.0
        self._held: LeaseState | None = None
        self._safe_until = float("-inf")
        self._told = ""
        self.leading_since = 0.0
        """When the lease was taken, by the clock."""
        self.answered = asyncio.Event()
        """Set once it is known who leads."""

    @property
    def is_leading(self) -> bool:
        """Whether this process may write now."""
        return self._held is not None and self._clock() < self._safe_until

    def check(self) -> None:
        """Raises NotLeadingError unless this process may write now."""
        if not self.is_leading:
            raise NotLeadingError("this process does not hold the lease")

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Campaigns for ever; runs `lead` while leading, cancels it when the lease is lost or this is cancelled."""
        try:
            while True:
                if await self.attempt():
                    await self._lead(lead)
                await asyncio.sleep(self._times.retry)
        finally:
            await self.release()

    async def attempt(self) -> bool:
        """Tries once to take or renew the lease; says whether this process leads."""
        asked = self._clock()
        try:
            held = await self._take_or_renew()
        except LeaseUnavailableError as error:
            self._tell_once(str(error))
            return self.is_leading
        self._told = ""
        self.answered.set()
        if held is not None:
            if not self.is_leading:
                self.leading_since = self._clock()
            self._safe_until = asked + self._times.renew_deadline
        elif self._held is not None:
            _log.warning("lease_lost", holder=self._seen.holder if self._seen else None)
        self._held = held
        return self.is_leading

    def _tell_once(self, trouble: str) -> None:
        if trouble != self._told:
            _log.warning("lease_unavailable", error=trouble)
        self._told = trouble

    async def release(self) -> None:
        """Gives the lease back at once, so that another replica need not wait for it to run out."""
        leading = self.is_leading
        self._held = None
        if not leading:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_RELEASE_SECONDS):
                while not await self._is_given_back():  # noqa: ASYNC110 - it asks another machine, which tells nobody
                    await asyncio.sleep(_RELEASE_PAUSE)

    async def _is_given_back(self) -> bool:
        """Tries once. The lease is read anew: a renewal that was cut short may have been carried out all the same."""
        try:
            found = await self._api.read()
            if found is not None and found.holder == self._identity:
                await self._api.renew(found, RELEASED, 1, acquired=False)
                _log.info("lease_released")
        except LeaseUnavailableError:
            return False
        return True

    async def _take_or_renew(self) -> LeaseState | None:
        found = await self._api.read()
        if found is None:
            return await self._api.create(self._identity, self._times.duration)
        if found != self._seen:
            self._seen, self._seen_at = found, self._clock()
        if found.holder == self._identity:
            return await self._api.renew(found, self._identity, self._times.duration, acquired=False)
        if found.holder != RELEASED and self._clock() < self._seen_at + max(found.duration, self._times.duration):
            return None
        return await self._api.renew(found, self._identity, self._times.duration, acquired=True)

    async def _lead(self, lead: Callable[[], Awaitable[None]]) -> None:
        _log.info("leading", identity=self._identity)
        self._announce(1)
        work = asyncio.ensure_future(lead())
        try:
            while self.is_leading:
                pause = min(self._times.retry, max(0.0, self._safe_until - self._clock()))
                finished, _ = await asyncio.wait({work}, timeout=pause)
                if finished:
                    await work
                    return
                await self._renew_in_time()
        except NotLeadingError:
            _log.info("stopped_by_fence")
        finally:
            self._announce(0)
            work.cancel()
            await asyncio.wait({work})
            _log.info("stopped_leading", identity=self._identity)

    async def _renew_in_time(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._safe_until - self._clock())):
                await self.attempt()
