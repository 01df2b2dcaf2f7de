"""Gathers what the planner needs to know of a job: from the store, and from the API server only what is not watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from finetune_operator.api.resources import ClusterFineTuneTemplate, FineTuneJob, FineTuneTemplate, Template
from finetune_operator.api.spec import TemplateKind
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.jobs import Json, is_owned_by, lacks_pods, stage_job, stage_of
from finetune_operator.cluster.latest_warning import JOB_REASONS, POD_REASONS, latest_warning
from finetune_operator.cluster.pods import is_held_up, pod_state
from finetune_operator.cluster.presence import presence
from finetune_operator.cluster.resolved import LeftoverError, ResolvedSpecs
from finetune_operator.plan.model.observed import Observed, PodPhase, PodState, StageJob
from finetune_operator.plan.resolve.resolver import claim_names, secret_names
from finetune_operator.runtime.kinds import BATCH_JOBS, CLAIMS, CLUSTER_TEMPLATES, PODS, SECRETS, TEMPLATES, JobKey
from finetune_operator.runtime.progress import ProgressBoard
from finetune_operator.runtime.store import Store
from finetune_trainer.contract import Progress, Stage

_PATIENCE: Final = timedelta(seconds=3)
"""How long a Job may have no pod, or a pod no container, before its events are asked."""
_RECHECK_SECONDS: Final = 15.0


@dataclass(frozen=True)
class Observation:
    observed: Observed
    recheck_after: float | None = None
    """Seconds after which something that is not watched may be different."""


@dataclass(frozen=True)
class _Stages:
    found: Mapping[Stage, StageJob]
    recheck_after: float | None


@dataclass(frozen=True)
class Observer:
    """Observes one job at a time. Costs no request for a job at which nothing happens."""

    store: Store
    client: Client
    resolved: ResolvedSpecs
    board: ProgressBoard

    async def observe(self, key: JobKey, job: FineTuneJob, now: datetime) -> Observation:
        """A job and its surroundings. Raises LeftoverError while children of an earlier job are in the way."""
        template = self._template(key, job)
        started = job.status is not None and job.status.start_time is not None
        resolved = await self.resolved.of(key, job.metadata.uid) if started or template else None
        observed = Observed(job=job, template=template, resolved=resolved)
        if resolved is None and template is not None:
            observed = replace(
                observed,
                secrets=await presence(self.client, SECRETS, key.namespace, secret_names(job)),
                claims=await presence(self.client, CLAIMS, key.namespace, claim_names(job)),
            )
        stages = await self._stages(key, job, now)
        progress = self._progress(key, stages.found)
        return Observation(replace(observed, stages=stages.found, progress=progress), stages.recheck_after)

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

    async def _stages(self, key: JobKey, job: FineTuneJob, now: datetime) -> _Stages:
        found: dict[Stage, StageJob] = {}
        recheck: float | None = None
        pods = self.store.children(key, PODS)
        for batch_job in self.store.children(key, BATCH_JOBS):
            stage = stage_of(batch_job)
            if stage is None:
                continue
            if not is_owned_by(batch_job, job.metadata.uid):
                raise LeftoverError(f"the Job {batch_job['metadata']['name']} belongs to an earlier job of this name")
            own = [pod for pod in pods if is_owned_by(pod, batch_job["metadata"]["uid"])]
            states = tuple([await self._pod(key, pod, now) for pod in own])
            if lacks_pods(batch_job, len(own)):
                states = await self._missing_pod(key, batch_job, now)
                recheck = _RECHECK_SECONDS if _is_overdue(batch_job, now) else _PATIENCE.total_seconds()
            elif any(is_held_up(pod) for pod in own):
                recheck = _RECHECK_SECONDS if any(_is_overdue(pod, now) for pod in own) else _PATIENCE.total_seconds()
            found[stage] = stage_job(batch_job, states)
        return _Stages(found, recheck)

    async def _pod(self, key: JobKey, pod: Json, now: datetime) -> PodState:
        state = pod_state(pod)
        if state.problem or not is_held_up(pod) or not _is_overdue(pod, now):
            return state
        words = await latest_warning(self.client, key.namespace, pod["metadata"]["uid"], POD_REASONS)
        return replace(state, problem=words)

    async def _missing_pod(self, key: JobKey, job: Json, now: datetime) -> tuple[PodState, ...]:
        """A pod that Kubernetes refused to make stands in the Job's events only: it is shown as one that is pending."""
        if not _is_overdue(job, now):
            return ()
        metadata = job["metadata"]
        words = await latest_warning(self.client, key.namespace, metadata["uid"], JOB_REASONS)
        if words is None:
            return ()
        created = datetime.fromisoformat(metadata["creationTimestamp"])
        return (PodState(name=f"{metadata['name']}-0", phase=PodPhase.PENDING, created=created, problem=words),)

    def _progress(self, key: JobKey, stages: Mapping[Stage, StageJob]) -> Progress | None:
        report = self.board.newest(key)
        if report is None:
            return None
        alive = {pod.name for stage in stages.values() for pod in stage.pods if not pod.ended}
        return report.progress if report.pod in alive else None


def _is_overdue(child: Json, now: datetime) -> bool:
    return now - datetime.fromisoformat(child["metadata"]["creationTimestamp"]) >= _PATIENCE
