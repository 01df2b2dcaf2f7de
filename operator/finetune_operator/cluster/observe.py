"""Gathers what the planner needs to know of a job: from the store, and from the API server only what is not watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from finetune_operator.api.resources import ClusterFineTuneTemplate, FineTuneJob, FineTuneTemplate, Template
from finetune_operator.api.spec import TemplateKind
from finetune_operator.cluster.children import Children, FoundJob, Relabel
from finetune_operator.cluster.client import Client, NotFoundError
from finetune_operator.cluster.jobs import is_taken_up, lacks_pod, stage_job
from finetune_operator.cluster.latest_warning import REMEMBERED_SECONDS, LatestWarnings
from finetune_operator.cluster.pods import is_held_up, pod_state
from finetune_operator.cluster.presence import presence
from finetune_operator.cluster.reported import Json
from finetune_operator.cluster.resolved import ResolvedSpecs
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.observed import Observed, PodPhase, PodState, StageJob
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.resolve.resolver import claim_names, secret_names
from finetune_operator.runtime.kinds import CLAIMS, CLUSTER_TEMPLATES, FINETUNE_JOBS, SECRETS, TEMPLATES, JobKey
from finetune_operator.runtime.progress import ProgressBoard
from finetune_operator.runtime.store import Store
from finetune_trainer.contract import Progress, Stage

_PATIENCE: Final = timedelta(seconds=3)
"""How long a Job may have no pod, or a pod no container, before its events are asked."""
_PATIENCE_IN_LINE: Final = timedelta(seconds=30)
"""The same for a Job that the Job controller has not come to: it has a thousand others to see to, and each question
has the API server look through all events of a namespace."""


@dataclass(frozen=True)
class Observation:
    observed: Observed
    relabel: tuple[Relabel, ...] = ()
    """Jobs that have to get their labels back, since changes of them are not told of."""
    recheck_after: float | None = None
    """Seconds after which something that is not watched may be different."""


@dataclass(frozen=True)
class _SeenStage:
    job: StageJob
    recheck_after: float | None = None


@dataclass(frozen=True)
class Observer:
    """Observes one job at a time. Costs no request for a job at which nothing happens."""

    store: Store
    client: Client
    children: Children
    resolved: ResolvedSpecs
    warnings: LatestWarnings
    board: ProgressBoard

    async def observe(self, key: JobKey, job: FineTuneJob, now: datetime) -> Observation:
        """A job and its surroundings."""
        template = self._template(key, job)
        found = {stage: one for stage in Stage if (one := await self.children.job(key, job, stage)) is not None}
        # A job that has a Job has started, also before its status says so.
        started = bool(found) or (job.status is not None and job.status.start_time is not None)
        resolved = await self.resolved.of(key, job.metadata.uid, started=started) if started or template else None
        observed = Observed(job=job, template=template, resolved=resolved)
        if resolved is None and template is not None:
            observed = replace(
                observed,
                secrets=await presence(self.client, SECRETS, key.namespace, secret_names(job)),
                claims=await presence(self.client, CLAIMS, key.namespace, claim_names(job)),
            )
        if template is not None and (resolved is None or _has_new_spec(job)):
            observed = replace(observed, resume_from=await self._resume_from(key, job))
        seen = {stage: await self._stage(key, job, stage, one, now) for stage, one in found.items()}
        stages = {stage: one.job for stage, one in seen.items()}
        strays = await self._strays(key, job, resolved, stages)
        return Observation(
            replace(observed, stages=stages, strays=strays, progress=self._progress(key, stages)),
            tuple(one.relabel for one in found.values() if one.relabel is not None),
            min((one.recheck_after for one in seen.values() if one.recheck_after is not None), default=None),
        )

    def forget(self, key: JobKey) -> None:
        """What is remembered of a job that is over or gone."""
        self.children.forget(key)
        self.resolved.forget(key)
        self.warnings.forget(key)
        self.board.forget(key)

    def _template(self, key: JobKey, job: FineTuneJob) -> Template | None:
        wanted = job.spec.template
        if wanted.kind is not TemplateKind.CLUSTER:
            own = self.store.get(TEMPLATES, key.namespace, wanted.name)
            if own is not None:
                return FineTuneTemplate.model_validate_json(own.raw)
        if wanted.kind is not TemplateKind.NAMESPACED:
            shared = self.store.get(CLUSTER_TEMPLATES, "", wanted.name)
            if shared is not None:
                return ClusterFineTuneTemplate.model_validate_json(shared.raw)
        return None

    async def _resume_from(self, key: JobKey, job: FineTuneJob) -> FineTuneJob | None:
        origin = job.spec.checkpoints.resume_from
        if origin is None or origin.job is None:
            return None
        try:
            found = await self.client.get(FINETUNE_JOBS.path(key.namespace, origin.job))
            return FineTuneJob.model_validate(found)
        except (NotFoundError, ValueError):  # not there, or of a version that cannot be read
            return None

    async def _strays(
        self, key: JobKey, job: FineTuneJob, resolved: ResolvedSpec | None, stages: Mapping[Stage, StageJob]
    ) -> tuple[PodState, ...]:
        """Pods left over from a Job of the current stage that is gone. The first stage comes before the status."""
        first = None if resolved is None else Stage.PREPARE
        stage = first if job.status is None else job.status.stage
        if stage is None or stage in stages:
            return ()
        return tuple(pod_state(pod) for pod in await self.children.strays(key, job, stage))

    async def _stage(self, key: JobKey, job: FineTuneJob, stage: Stage, found: FoundJob, now: datetime) -> _SeenStage:
        pods = self.children.pods(found.body["metadata"]["uid"])
        read = _read(found.body, pods.bodies)
        if not pods.complete or _seems_to_have_lost_pods(job, stage, read):
            pods = await self.children.live_pods(key, read.uid)
            read = _read(found.body, pods.bodies)
        return await self._with_problem(key, found.body, pods.bodies, read, now)

    async def _with_problem(
        self, key: JobKey, body: Json, pods: tuple[Json, ...], read: StageJob, now: datetime
    ) -> _SeenStage:
        """Adds what only events tell: why a pod is not made, or has a node and does not start."""
        missing = lacks_pod(body, read.pods)
        told = {pod.name for pod in read.pods if pod.problem}
        held_up = [pod for pod in pods if is_held_up(pod) and pod["metadata"]["name"] not in told]
        waiting = ([body] if missing is not None else []) + held_up
        if not waiting:
            return _SeenStage(read)
        patience = _PATIENCE if is_taken_up(body) or held_up else _PATIENCE_IN_LINE
        overdue = [one["metadata"]["uid"] for one in waiting if _is_overdue(one, now, patience)]
        if not overdue:
            return _SeenStage(read, patience.total_seconds())
        warned = await self.warnings.about_one_of(key, overdue)
        if warned.words is None:
            return _SeenStage(read, REMEMBERED_SECONDS)
        if warned.uid == read.uid:
            read = replace(read, not_created=warned.words)
        else:
            name = next(pod["metadata"]["name"] for pod in pods if pod["metadata"]["uid"] == warned.uid)
            shown = (replace(pod, problem=warned.words) if pod.name == name else pod for pod in read.pods)
            read = replace(read, pods=tuple(shown))
        return _SeenStage(read, REMEMBERED_SECONDS)

    def _progress(self, key: JobKey, stages: Mapping[Stage, StageJob]) -> Progress | None:
        report = self.board.newest(key)
        if report is None:
            return None
        alive = {pod.name for stage in stages.values() for pod in stage.pods if not pod.ended}
        return report.progress if report.pod in alive else None


def _has_new_spec(job: FineTuneJob) -> bool:
    return job.status is not None and job.status.observed_generation != job.metadata.generation


def _read(job: Json, pods: tuple[Json, ...]) -> StageJob:
    return stage_job(job, tuple(pod_state(pod) for pod in pods))


def _seems_to_have_lost_pods(job: FineTuneJob, stage: Stage, found: StageJob) -> bool:
    """Whether pods are missing whose loss would end an attempt or repeat a stage."""
    status = job.status
    if status is None or status.stage is not stage:
        return False
    if found.complete:
        succeeded = {pod.index for pod in found.pods if pod.phase is PodPhase.SUCCEEDED}
        return len(succeeded) < found.completions
    attempt = status.attempts[-1] if status.attempts else None
    if stage is not Stage.TRAIN or attempt is None or attempt.is_over or attempt.running_since is None:
        return False
    present = {pod.index for pod in attempts.pods_of(found, attempt, status.attempts)}
    return len(present) < found.completions and not (found.failed or found.deleting)


def _is_overdue(child: Json, now: datetime, patience: timedelta) -> bool:
    return now - datetime.fromisoformat(child["metadata"]["creationTimestamp"]) >= patience
