"""Elections between replicas that share one Lease and one clock, neither of which is real."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import pytest
from tests.unit.runtime.fake_time import FakeTime

from finetune_operator.runtime.lease import Election, LeaseState, LeaseTimes, LeaseUnavailableError, NotLeadingError

TIMES = LeaseTimes(duration=15, renew_deadline=10, retry=2)


@dataclass
class SharedLease:
    """The API server's Lease: a write with an old version fails."""

    state: LeaseState | None = None
    reachable: bool = True
    writes: int = 0

    async def read(self) -> LeaseState | None:
        self._reach()
        return self.state

    async def create(self, holder: str, duration: float) -> LeaseState:
        self._reach()
        if self.state is not None:
            raise LeaseUnavailableError("exists")
        return self._write(LeaseState(holder, duration, 0, "0"))

    async def renew(self, held: LeaseState, holder: str, duration: float, *, acquired: bool) -> LeaseState:
        self._reach()
        if self.state is None or self.state.version != held.version:
            raise LeaseUnavailableError("conflict")
        return self._write(replace(held, holder=holder, duration=duration, transitions=held.transitions + acquired))

    def _write(self, state: LeaseState) -> LeaseState:
        self.writes += 1
        self.state = replace(state, version=str(self.writes))
        return self.state

    def _reach(self) -> None:
        if not self.reachable:
            raise LeaseUnavailableError("out of reach")


@pytest.fixture
def time() -> FakeTime:
    return FakeTime()


@pytest.fixture
def lease() -> SharedLease:
    return SharedLease()


@pytest.fixture
def first(lease: SharedLease, time: FakeTime) -> Election:
    return Election(lease, "first", time.time, TIMES)


@pytest.fixture
def second(lease: SharedLease, time: FakeTime) -> Election:
    return Election(lease, "second", time.time, TIMES)


async def test_who_comes_first_leads(first: Election, second: Election) -> None:
    assert await first.attempt()
    assert not await second.attempt()
    assert second.answered.is_set()


async def test_who_does_not_lead_must_not_write(first: Election, second: Election) -> None:
    await first.attempt()
    await second.attempt()
    first.check()
    with pytest.raises(NotLeadingError):
        second.check()


async def test_a_leader_that_renews_keeps_the_lease(first: Election, second: Election, time: FakeTime) -> None:
    for _ in range(30):
        assert await first.attempt()
        assert not await second.attempt()
        time.advance(2)


async def test_a_leader_that_cannot_renew_stops_before_another_can_take_over(
    first: Election, second: Election, lease: SharedLease, time: FakeTime
) -> None:
    await first.attempt()
    await second.attempt()
    time.advance(9.9)
    assert first.is_leading
    time.advance(0.2)
    assert not first.is_leading
    assert not await second.attempt()
    time.advance(5)
    assert await second.attempt()
    assert lease.state is not None
    assert lease.state.transitions == 1


async def test_at_no_moment_do_two_lead(first: Election, second: Election, lease: SharedLease, time: FakeTime) -> None:
    await first.attempt()
    for step in range(200):
        lease.reachable = step % 40 > 12
        if step % 3:
            await first.attempt()
        assert not (first.is_leading and second.is_leading)
        lease.reachable = True
        await second.attempt()
        assert not (first.is_leading and second.is_leading)
        time.advance(1)


async def test_a_follower_waits_from_when_it_first_saw_the_lease(
    second: Election, lease: SharedLease, time: FakeTime
) -> None:
    await lease.create("somebody", 15)
    time.advance(1000)
    assert not await second.attempt()
    time.advance(14.9)
    assert not await second.attempt()
    time.advance(0.1)
    assert await second.attempt()


async def test_a_released_lease_is_taken_at_once(first: Election, second: Election) -> None:
    await first.attempt()
    await second.attempt()
    await first.release()
    assert not first.is_leading
    assert await second.attempt()


async def test_a_lease_is_released_although_the_answer_to_its_last_renewal_was_not_awaited(
    first: Election, second: Election, lease: SharedLease
) -> None:
    await first.attempt()
    await second.attempt()
    assert lease.state is not None
    await lease.renew(lease.state, lease.state.holder, 15, acquired=False)
    await first.release()
    assert await second.attempt()


async def test_a_lease_that_was_lost_is_not_released(first: Election, lease: SharedLease, time: FakeTime) -> None:
    await first.attempt()
    time.advance(11)
    writes = lease.writes
    await first.release()
    assert lease.writes == writes


async def test_the_time_of_the_request_counts_against_the_leader(lease: SharedLease, time: FakeTime) -> None:
    class SlowLease(SharedLease):
        async def create(self, holder: str, duration: float) -> LeaseState:
            time.advance(8)
            return await super().create(holder, duration)

    election = Election(SlowLease(), "slow", time.time, TIMES)
    assert await election.attempt()
    time.advance(2)
    assert not election.is_leading


async def test_a_lease_out_of_reach_answers_nothing(first: Election, lease: SharedLease) -> None:
    lease.reachable = False
    assert not await first.attempt()
    assert not first.answered.is_set()


async def test_work_runs_while_leading_and_the_lease_is_free_after_it(lease: SharedLease, time: FakeTime) -> None:
    announced: list[int] = []
    election = Election(lease, "first", time.time, TIMES, announced.append)
    working = asyncio.Event()

    async def work() -> None:
        working.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(election.run(work))
    await working.wait()
    assert election.is_leading
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert announced == [1, 0]
    assert lease.state is not None
    assert lease.state.holder == ""


async def test_work_that_fails_ends_the_election_and_frees_the_lease(first: Election, lease: SharedLease) -> None:
    async def work() -> None:
        raise LookupError("broken")

    with pytest.raises(LookupError):
        await first.run(work)
    assert lease.state is not None
    assert lease.state.holder == ""


async def test_work_that_the_fence_stopped_is_begun_again_with_the_next_lease(
    lease: SharedLease, time: FakeTime
) -> None:
    election = Election(lease, "first", time.time, LeaseTimes(15, 10, retry=0.001))
    turns: list[int] = []
    twice = asyncio.Event()

    async def work() -> None:
        turns.append(1)
        if len(turns) == 1:
            raise NotLeadingError
        twice.set()
        await asyncio.Event().wait()

    running = asyncio.create_task(election.run(work))
    await twice.wait()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
