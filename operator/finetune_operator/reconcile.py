"""One look at one job: observe, plan, create, write the status if it differs, remove; then the events.

What starts pods comes before what tells of it: a look that has created a stage's Job leaves status and events to the
next one, which comes a moment later, plans the same, and often has the pod to tell of, too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any, Final

import pydantic_core
import structlog
from pydantic import ValidationError

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import JobStatus
from finetune_operator.cluster.apply import Applier, NameTakenError
from finetune_operator.cluster.client import Client, NotFoundError, RefusedError
from finetune_operator.cluster.events import EventSender
from finetune_operator.cluster.observe import Observation, Observer
from finetune_operator.cluster.unreadable import Unreadable, unreadable
from finetune_operator.plan.model.observed import Observed
from finetune_operator.plan.model.plan import (
    Action,
    Create,
    DeleteJob,
    DeletePods,
    EndJob,
    Fault,
    JobEvent,
    NameTaken,
    Plan,
    QueueJob,
    Refusal,
    soonest,
)
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.planner import plan, stalled
from finetune_operator.runtime.kinds import FINETUNE_JOBS, JobKey
from finetune_operator.runtime.lease import NotLeadingError
from finetune_operator.runtime.store import Record, Store, record_of
from finetune_operator.runtime.workers import TransientError

Log = structlog.stdlib.BoundLogger
_log: Log = structlog.get_logger(__name__)
_TRIES: Final = 3
"""Failures in a row after which a job's status tells of them."""
_BRIEF: Final = timedelta(seconds=5)
"""What passes by itself within this time (an API server that restarts) is not told: Flux takes Stalled as final."""
_WIND_UP: Final = timedelta(seconds=15)
"""What the Jobs of a job that has ended are given to end by themselves."""


@dataclass
class _Failures:
    """Of one job, since its last success."""

    since: datetime
    tries: int = 0
    told: str = ""
    """The message that the status has."""


@dataclass(frozen=True)
class Reconciler:
    """Level-triggered: it looks at what is, never at what woke it. Doing it twice changes nothing."""

    store: Store
    client: Client
    observer: Observer
    applier: Applier
    events: EventSender
    forget: Callable[[JobKey], None]
    """Called for a job that is over or gone."""
    rest: Callable[[JobKey], None]
    """Called for a job whose Job was just created: what is to be told of that may wait for a moment."""
    settings: PlanSettings
    now: Callable[[], datetime]
    _failures: dict[JobKey, _Failures] = field(default_factory=dict)
    _untold: dict[JobKey, set[str]] = field(default_factory=dict)
    """Names of what was made since the last look that told."""

    async def reconcile(self, key: JobKey) -> float | None:
        """Returns the seconds after which to look again although nothing happened."""
        if self.store.is_quiet(key):
            self._forget(key)
            return None
        try:
            after = await self._reconcile(key)
        except NotLeadingError:
            raise
        except Exception as error:
            await self._failed(key, error)
            raise
        self._failures.pop(key, None)
        return after

    async def _reconcile(self, key: JobKey) -> float | None:
        now, record = self.now(), self.store.job(key)
        if record is not None and record.ended:
            if (left := _winding_up(record, now)) is not None:
                return left
            record = await self._whole(key, record)
        if record is None:
            self._forget(key)
            return None
        try:
            job = FineTuneJob.model_validate_json(record.raw)
        except ValidationError as error:
            await self._cannot_read(key, record, unreadable(record.raw, error, now), now)
            return None
        if job.metadata.deletion_timestamp:
            return None
        seen = await self.observer.observe(key, job, now)
        return await self._act(key, job, seen, now)

    async def _whole(self, key: JobKey, record: Record) -> Record | None:
        """A job that has ended with all of its JSON: the store keeps too little to plan from."""
        try:
            body = await self.client.get(FINETUNE_JOBS.path(*key))
        except NotFoundError:
            self.applier.inbox.gone(FINETUNE_JOBS, record.ref, record.uid)
            return None
        found = record_of(FINETUNE_JOBS, body)
        self.applier.inbox.seen(found)
        return replace(found, raw=pydantic_core.to_json(FINETUNE_JOBS.trim(body)))

    async def _act(self, key: JobKey, job: FineTuneJob, seen: Observation, now: datetime) -> float | None:
        decided = plan(seen.observed, now, self.settings)
        log = _log.bind(job=key.name, namespace=key.namespace, uid=job.metadata.uid, attempt=decided.status.attempt)
        for lost in seen.relabel:
            await self.applier.relabel(key, lost)
            log.warning("action_applied", action=f"give Job/{lost.name} its labels back")
        decided = await self._create(key, seen.observed, decided, now, log)
        if self._is_told_later(key, decided):
            self.rest(key)
            return None
        if not self._is_told_already(key, job.status, decided.status):
            await self._write(key, job, decided.status, log)
        for removal in decided.after_status:
            await self.applier.carry_out(key, job.metadata.uid, removal)
            log.info("action_applied", action=_described(removal))
        if self._is_told_already(key, job.status, decided.status):
            await self._write(key, job, decided.status, log)
        self._tell(job, decided.events, now, log)
        return soonest(decided.requeue_after, seen.recheck_after)

    def _is_told_later(self, key: JobKey, decided: Plan) -> bool:
        """Once for each Job: one that somebody deletes again and again gets into the status."""
        made = {action.manifest["metadata"]["name"] for action in decided.actions if isinstance(action, Create)}
        if not decided.told_later or made <= self._untold.get(key, set()):
            self._untold.pop(key, None)
            return False
        self._untold.setdefault(key, set()).update(made)
        return True

    async def _create(self, key: JobKey, observed: Observed, decided: Plan, now: datetime, log: Log) -> Plan:
        """Does the plan's actions in order; the first that cannot be done makes it another plan."""
        uid = observed.job.metadata.uid
        for together in _together(decided.actions):
            carried_out = (self.applier.carry_out(key, uid, action) for action in together)
            results = await asyncio.gather(*carried_out, return_exceptions=True)
            for action, error in zip(together, results, strict=True):
                if error is None:
                    log.info("action_applied", action=_described(action))
            for action, error in zip(together, results, strict=True):
                if isinstance(error, RefusedError | NameTakenError):
                    told = stalled(observed, _obstacle(error), now)
                    _log_refusal(log, action, error, observed.job.status, told.status)
                    return told
                if error is not None:
                    raise error
        return decided

    def _is_told_already(self, key: JobKey, before: JobStatus | None, after: JobStatus) -> bool:
        """Whether only words have to change, since what removals stand on is in the status of an earlier try.

        Then the status waits until they have been done: it would else change with every try and back.
        """
        failures = self._failures.get(key)
        return bool(failures and failures.told and before is not None and _substance(before) == _substance(after))

    async def _write(self, key: JobKey, job: FineTuneJob, status: JobStatus, log: Log) -> None:
        if job.status is None or status != job.status:
            await self.applier.write_status(key, job, status)
            log.debug("status_written", phase=status.phase.value, reason=status.reason)

    def _tell(self, job: FineTuneJob, events: tuple[JobEvent, ...], now: datetime, log: Log) -> None:
        for event in events:
            log.info("event_emitted", reason=event.reason.value, message=event.message)
            self.events.post(job.metadata, event, now)

    async def _cannot_read(self, key: JobKey, record: Record, found: Unreadable, now: datetime) -> None:
        """The schema lets nothing through that this cannot read, unless the CRD is of another version."""
        log = _log.bind(job=key.name, namespace=key.namespace, uid=record.uid)
        log.error("job_unreadable", message=found.event.message)
        if found.changes is not None:
            await self.applier.patch_status(key, record.uid, record.version, found.changes)
            self.events.post(found.metadata, found.event, now)

    async def _failed(self, key: JobKey, error: Exception) -> None:
        """Counts; what goes on failing gets into the status, as well as that can be done."""
        now = self.now()
        failures = self._failures.setdefault(key, _Failures(now))
        failures.tries += 1
        may_pass = isinstance(error, TransientError) and now - failures.since < _BRIEF
        message = str(error) or type(error).__name__
        if failures.tries < _TRIES or may_pass or message == failures.told:
            return
        record = self.store.job(key)
        if record is None or record.ended:
            return
        try:
            job = FineTuneJob.model_validate_json(record.raw)
            decided = stalled(Observed(job=job), Fault(failures.tries, message), now)
            log = _log.bind(job=key.name, namespace=key.namespace, uid=record.uid)
            await self._write(key, job, decided.status, log)
            self._tell(job, decided.events, now, log)
        except Exception as unable:  # noqa: BLE001 - the failure itself is raised again: this was an attempt to tell of it
            _log.warning("failure_not_told", job=key.name, namespace=key.namespace, error=str(unable))
        else:
            failures.told = message

    def _forget(self, key: JobKey) -> None:
        self._failures.pop(key, None)
        self._untold.pop(key, None)
        self.forget(key)


def _winding_up(record: Record, now: datetime) -> float | None:
    """Seconds for which the Jobs of a job that has just ended, and whose spec is as it was, are left in peace."""
    completed = pydantic_core.from_json(record.raw)["status"].get("completionTime")
    if record.behind or completed is None:
        return None
    left = datetime.fromisoformat(completed) + _WIND_UP - now
    return left.total_seconds() if left > timedelta() else None


def _log_refusal(
    log: Log, action: Action, error: RefusedError | NameTakenError, before: JobStatus | None, after: JobStatus
) -> None:
    """A predecessor that goes is looked at every other second: that is told when it begins, and is nobody's fault."""
    if not (isinstance(error, NameTakenError) and error.taken.is_going):
        log.warning("refused", action=_described(action), error=str(error))
    elif before is None or before.reason != after.reason:
        log.info("waiting", action=_described(action), error=str(error))


def _obstacle(error: RefusedError | NameTakenError) -> Refusal | NameTaken:
    if isinstance(error, NameTakenError):
        return error.taken
    return Refusal(error.status, error.reason, error.message)


def _substance(status: JobStatus) -> dict[str, Any]:
    return status.model_dump(exclude={"reason", "message", "conditions", "progress", "metrics"})


def _together(actions: tuple[Action, ...]) -> Iterator[tuple[Action, ...]]:
    """What a Job needs is created at once, the Job only when all of that is there; the rest goes one by one."""
    for needed, group in groupby(actions, _is_needed_by_a_job):
        if needed:
            yield tuple(group)
        else:
            yield from ((action,) for action in group)


def _is_needed_by_a_job(action: Action) -> bool:
    return isinstance(action, Create) and action.manifest["kind"] != "Job"


def _described(action: Action) -> str:
    match action:
        case Create():
            return f"create {action.manifest['kind']}/{action.manifest['metadata']['name']}"
        case DeleteJob():
            return f"delete Job/{action.job}"
        case EndJob():
            return f"end Job/{action.job}"
        case DeletePods():
            return f"delete of Job/{action.job} the pods {', '.join(action.pods)}"
        case QueueJob():
            return f"queue Job/{action.job} in {action.queue}"
