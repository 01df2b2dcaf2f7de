"""The loop of a local run: observe, plan, create, write the status, remove, show; until the job is over or stopped."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Protocol

from finetune_operator.api.resources import FineTuneJob, Template
from finetune_operator.api.status import ConditionStatus, ConditionType, JobStatus, Phase
from finetune_operator.local.cluster import LocalCluster
from finetune_operator.local.folders import write_atomically
from finetune_operator.plan.model.plan import JobEvent, Plan
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.planner import plan

_PLAN_EVERY: Final = 0.5
"""Seconds between two looks at a run in which nothing ends."""
_POLL_EVERY: Final = 0.05


class Display(Protocol):
    """Where a run shows itself."""

    def show(self, status: JobStatus, now: datetime) -> None:
        """Called at every look while the job goes on, also when nothing is new."""

    def event(self, event: JobEvent, now: datetime) -> None:
        """Called once for each event."""


@dataclass
class StopSignal:
    """How often the user asked the run to stop: once to save and stop, twice to stop at once."""

    requests: int = 0

    def request(self) -> None:
        self.requests += 1

    @property
    def stop(self) -> bool:
        return self.requests >= 1

    @property
    def now(self) -> bool:
        return self.requests > 1


@dataclass
class LocalRun:
    """One job, run on this machine."""

    job: FineTuneJob
    template: Template
    settings: PlanSettings
    cluster: LocalCluster
    display: Display
    status_files: Sequence[Path]
    stopping: StopSignal = field(default_factory=StopSignal)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _seen: set[JobEvent] = field(default_factory=set)

    def execute(self) -> JobStatus:
        """Runs until the job is over or stopped; no process is left when it returns. The last status."""
        try:
            while not (self._look() and self._over()) and not self.stopping.now:
                self._wait()
            return self._status
        finally:
            self.cluster.kill(self.clock())

    @property
    def _status(self) -> JobStatus:
        return self.job.status or JobStatus()

    def _over(self) -> bool:
        """Whether nothing will happen any more, given that nothing happened at the last look."""
        status = self._status
        waits = _is_at_rest(status) or self.stopping.stop or _is_stuck(status)
        return waits and not self.cluster.running

    def _look(self) -> bool:
        """One reconcile: what the operator does for a key of its queue. Whether it left everything as it was."""
        if self.stopping.stop and not self.job.spec.run_policy.suspend:
            self.job = suspended(self.job)
        now = self.clock()
        self.cluster.tick(now)
        observed = self.cluster.observe(self.job, self.template)
        made = plan(observed, now, self.settings)
        for action in made.actions:
            self.cluster.apply(action, now)
        self._write(made.status)
        for removal in made.after_status:
            self.cluster.apply(removal, now)
        self._show(made, now)
        return not self.cluster.tick(now) and not made.actions and not made.after_status

    def _write(self, status: JobStatus) -> None:
        if status == self.job.status:
            return
        self.job = self.job.model_copy(update={"status": status})
        text = status.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n"
        for file in self.status_files:
            write_atomically(file, text)

    def _show(self, made: Plan, now: datetime) -> None:
        for event in made.events:
            is_the_last_word = _is_at_rest(made.status) and event.message == made.status.message
            if event not in self._seen and not is_the_last_word:
                self._seen.add(event)
                self.display.event(event, now)
        if not _is_at_rest(made.status):
            self.display.show(made.status, now)

    def _wait(self) -> None:
        """Until it is time for the next look, a process has ended, or the user asks to stop."""
        until, requests = time.monotonic() + _PLAN_EVERY, self.stopping.requests
        while time.monotonic() < until and self.stopping.requests == requests:
            if self.cluster.tick(self.clock()):
                return
            time.sleep(_POLL_EVERY)


def suspended(job: FineTuneJob) -> FineTuneJob:
    """The job as it is when its user sets spec.runPolicy.suspend."""
    policy = job.spec.run_policy.model_copy(update={"suspend": True})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"run_policy": policy})})


def _is_at_rest(status: JobStatus) -> bool:
    return status.phase.is_terminal or status.phase is Phase.SUSPENDED


def _is_stuck(status: JobStatus) -> bool:
    """Whether it waits for something that nobody will provide: here is no cluster that could."""
    stalled = status.condition(ConditionType.STALLED)
    return stalled is not None and stalled.status is ConditionStatus.TRUE
