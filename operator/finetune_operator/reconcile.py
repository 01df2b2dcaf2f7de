"""One look at one job: observe, plan, apply, and write the status if it differs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

import structlog
from pydantic import ValidationError

from finetune_operator.api.resources import FineTuneJob, Resource
from finetune_operator.api.status import Reason
from finetune_operator.cluster import events
from finetune_operator.cluster.apply import Applier
from finetune_operator.cluster.client import Client, RefusedError
from finetune_operator.cluster.observe import Observer
from finetune_operator.plan.model.observed import Observed
from finetune_operator.plan.model.plan import (
    Action,
    Apply,
    DeleteJob,
    EventType,
    JobEvent,
    LabelAttempt,
    Plan,
    SetSuspend,
)
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.planner import Rejection, plan, rejected
from finetune_operator.runtime.kinds import JobKey
from finetune_operator.runtime.store import Record, Store

Log = structlog.stdlib.BoundLogger
_log: Log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Reconciler:
    """Level-triggered: it looks at what is, never at what woke it. Doing it twice changes nothing."""

    store: Store
    client: Client
    observer: Observer
    applier: Applier
    forget: Callable[[JobKey], None]
    """Called for a job that has ended or is gone."""
    settings: PlanSettings
    now: Callable[[], datetime]

    async def reconcile(self, key: JobKey) -> float | None:
        """Returns the seconds after which to look again although nothing happened."""
        record = self.store.job(key)
        if record is None or record.ended:
            self.forget(key)
            return None
        now = self.now()
        try:
            job = FineTuneJob.model_validate_json(record.raw)
        except ValidationError as error:
            await self._cannot_read(record, error, now)
            return None
        if job.metadata.deletion_timestamp:
            return None
        seen = await self.observer.observe(key, job, now)
        decided = plan(seen.observed, now, self.settings)
        log = _log.bind(job=key.name, namespace=key.namespace, uid=job.metadata.uid, attempt=decided.status.attempt)
        decided = await self._act(key, seen.observed, decided, now, log)
        await self._tell(key, job, decided, now, log)
        return _soonest(decided.requeue_after, seen.recheck_after)

    async def _act(self, key: JobKey, observed: Observed, decided: Plan, now: datetime, log: Log) -> Plan:
        """Does the plan's actions in order; the first that is refused makes it another plan."""
        uid = observed.job.metadata.uid
        for together in _together(decided.actions):
            carried_out = (self.applier.carry_out(key, uid, action) for action in together)
            results = await asyncio.gather(*carried_out, return_exceptions=True)
            for action, error in zip(together, results, strict=True):
                if isinstance(error, RefusedError):
                    log.warning("refused", action=_described(action), error=str(error))
                    rejection = Rejection(error.status, error.reason, error.message)
                    return rejected(observed, decided, rejection, now)
                if error is not None:
                    raise error
                log.info("action_applied", action=_described(action))
        return decided

    async def _tell(self, key: JobKey, job: FineTuneJob, decided: Plan, now: datetime, log: Log) -> None:
        status = decided.status
        for event in decided.events:
            log.info("event_emitted", reason=event.reason.value, message=event.message)
            await events.send(self.client, job.metadata, event, now)
        if job.status is None or status != job.status:
            await self.applier.write_status(key, job, status)
            log.debug("status_written", phase=status.phase.value, reason=status.reason)

    async def _cannot_read(self, record: Record, error: ValidationError, now: datetime) -> None:
        """The schema lets nothing through that this cannot read, unless the CRD is of another version."""
        metadata = Resource.model_validate_json(record.raw).metadata
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        message = f"this version of the operator cannot read the job: {problems}. Install the operator's own CRDs"
        log = _log.bind(job=metadata.name, namespace=metadata.namespace, uid=record.uid)
        log.error("job_unreadable", message=message)
        await events.send(self.client, metadata, JobEvent(EventType.WARNING, Reason.INVALID_SPEC, message), now)


def _together(actions: tuple[Action, ...]) -> Iterator[tuple[Action, ...]]:
    """What a Job needs is applied at once, the Job only when all of that is there; the rest goes one by one."""
    for needed, group in groupby(actions, _is_needed_by_a_job):
        if needed:
            yield tuple(group)
        else:
            yield from ((action,) for action in group)


def _is_needed_by_a_job(action: Action) -> bool:
    return isinstance(action, Apply) and action.manifest["kind"] != "Job"


def _described(action: Action) -> str:
    match action:
        case Apply():
            return f"apply {action.manifest['kind']}/{action.manifest['metadata']['name']}"
        case SetSuspend():
            return f"{'suspend' if action.suspend else 'resume'} Job/{action.job}"
        case LabelAttempt():
            return f"charge attempt {action.attempt} with {', '.join(action.pods)}"
        case DeleteJob():
            return f"delete Job/{action.job}"


def _soonest(*delays: float | None) -> float | None:
    return min((delay for delay in delays if delay is not None), default=None)
