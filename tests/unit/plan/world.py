"""A FineTuneJob in a cluster in memory: the planner's plans are carried out as the operator does it.

Actions in order, then the status, then removals, then events; the operator may die between any two of these, may see
less than there is (each kind of object is watched by itself), and may be refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from tests.unit.plan.builders import SETTINGS, a_job, a_result, a_template
from tests.unit.plan.cluster_model import BatchJob, Cluster, GoneError, Pod, TakenError

from finetune_operator.api.resources import FineTuneJob, Template
from finetune_operator.api.status import ConditionStatus, ConditionType, JobStatus, Phase
from finetune_operator.plan.manifests.stages import parse_resolved
from finetune_operator.plan.model.names import LABEL_STAGE, resolved_name, stage_name
from finetune_operator.plan.model.observed import Observed, PodPhase, PodState, Presence
from finetune_operator.plan.model.plan import (
    Action,
    Create,
    DeleteJob,
    DeletePods,
    EndJob,
    Fault,
    NameTaken,
    Obstacle,
    Plan,
    QueueJob,
    Refusal,
)
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.planner import plan, stalled
from finetune_trainer.contract import ExitCode, Progress, Result, Stage

KINDS: Final = ("job", "jobs", "pods")
"""What is watched: the FineTuneJob, the batch/v1 Jobs, the pods."""


class StaleError(Exception):
    """The store is behind: look again."""


class ObstacleError(Exception):
    def __init__(self, obstacle: Obstacle) -> None:
        super().__init__(str(obstacle))
        self.obstacle = obstacle


class World:
    """One FineTuneJob and all that belongs to it."""

    def __init__(
        self,
        job: FineTuneJob | None = None,
        template: Template | None = None,
        settings: PlanSettings = SETTINGS,
        cluster: Cluster | None = None,
    ) -> None:
        self.job = job or a_job()
        self.template: Template | None = template or a_template()
        self.settings = settings
        self.cluster = cluster or Cluster()
        self.secrets: dict[str, Presence] = {}
        self.claims: dict[str, Presence] = {}
        self.resume_from: FineTuneJob | None = None
        self.resolved: ResolvedSpec | None = None
        self.refusal: Refusal | Fault | None = None
        """What the API server answers to the creation of a Job."""
        self.started = self.removal_time = self.now
        self.events: list[str] = []
        self.told: list[str] = []
        self.removals: list[DeleteJob | EndJob | DeletePods] = []
        self.made: set[str] = set()
        """Uids of all Jobs that we ever made."""
        self._report: tuple[str | None, Progress] | None = None
        self._cached_job = self.job
        self._cached_jobs: dict[str, BatchJob] = {}
        self._cached_pods: list[Pod] = []
        self.last_seen = self.observed()
        """What the last reconcile was shown."""

    # What there is

    @property
    def now(self) -> datetime:
        return self.cluster.now

    @property
    def status(self) -> JobStatus:
        return self.job.status or JobStatus()

    @property
    def phase(self) -> Phase:
        return self.status.phase

    @property
    def jobs(self) -> dict[Stage, BatchJob]:
        """Our Jobs as they are."""
        return {job.stage: job for job in self.cluster.jobs if self.is_ours(job)}

    def is_ours(self, job: BatchJob) -> bool:
        return job.owner == self.job.metadata.uid and job.name == stage_name(self.job.metadata.name, job.stage)

    def pods(self, stage: Stage) -> list[PodState]:
        """The pods of our Job of the stage."""
        return [pod.state for pod in self.cluster.pods_of(self.jobs[stage])]

    def pod(self, stage: Stage, index: int) -> PodState:
        """The live one of this rank."""
        return next(pod for pod in self.pods(stage) if pod.index == index and not pod.ended)

    def holds(self, kind: ConditionType) -> bool:
        condition = self.status.condition(kind)
        return condition is not None and condition.status is ConditionStatus.TRUE

    @property
    def progress(self) -> Progress | None:
        return self._report[1] if self._report else None

    @progress.setter
    def progress(self, report: Progress | None) -> None:
        """Told by rank 0 of the stage, and lost with it."""
        pods = self.pods(report.stage) if report else []
        first = (pod.name for pod in pods if pod.index == 0 and not pod.ended)
        self._report = None if report is None else (next(first, None), report)

    # What the operator sees and does

    def sync(self, *kinds: str) -> None:
        """The watches of these kinds (all of them without any) bring what has changed."""
        kinds = kinds or KINDS
        if "job" in kinds:
            self._cached_job = self.job
        if "jobs" in kinds:
            self._cached_jobs = {job.name: replace(job) for job in self.cluster.jobs}
        if "pods" in kinds:
            self._cached_pods = [replace(pod) for pod in self.cluster.pods]

    @property
    def observed_jobs(self) -> list[BatchJob]:
        return [job for job in self._cached_jobs.values() if self.is_ours(job)]

    @property
    def observed_pods(self) -> list[Pod]:
        return self._cached_pods

    def observed(self) -> Observed:
        ours = self.observed_jobs
        stages = {job.stage: job.observed(self._pods_seen(job)) for job in ours}
        report = self._report
        if report is not None and report[0] is not None:
            alive = {pod.state.name for pod in self._cached_pods if pod.alive}
            report = report if report[0] in alive else None
        return Observed(
            job=self._cached_job,
            template=self.template,
            secrets=self.secrets,
            claims=self.claims,
            resolved=self.resolved,
            stages=stages,
            strays=self._strays(),
            resume_from=self.resume_from,
            progress=report[1] if report else None,
        )

    def _strays(self) -> tuple[PodState, ...]:
        """Told from the pods alone: their Job is not there any more."""
        known = {job.uid for job in self._cached_jobs.values()}
        return tuple(pod.state for pod in self._cached_pods if pod.alive and pod.owner not in known)

    def _pods_seen(self, job: BatchJob) -> tuple[PodState, ...]:
        """A complete Job whose pods are not in the store is confirmed by a live list."""
        seen = [pod.state for pod in self._cached_pods if pod.owner == job.uid]
        if job.complete and not any(pod.phase is PodPhase.SUCCEEDED and pod.index == 0 for pod in seen):
            seen = [pod.state for pod in self.cluster.pods if pod.owner == job.uid]
        return tuple(sorted(seen, key=lambda pod: (pod.index, pod.created, pod.name)))

    def plan(self) -> Plan:
        """What would be done now by an operator that has seen everything."""
        self.sync()
        return plan(self.observed(), self.now, self.settings)

    @property
    def is_hindered(self) -> bool:
        """Whether a creation would be refused."""
        return self.refusal is not None or any(not self.is_ours(job) for job in self.cluster.jobs)

    def reconcile(self, *, dies_after: int | None = None, sees: Iterable[str] = KINDS) -> Plan:
        """Plans and carries out; an operator that dies after a number of steps is started again, and sees it all."""
        if sees:
            self.sync(*sees)
        observed = self.last_seen = self.observed()
        decided = plan(observed, self.now, self.settings)
        try:
            for number, _ in enumerate(self._carry_out(decided)):
                if number == dies_after:
                    self.sync()
                    return decided
        except StaleError:
            return decided
        except ObstacleError as error:
            return self._stall(observed, error.obstacle)
        return decided

    def _stall(self, observed: Observed, obstacle: Obstacle) -> Plan:
        decided = stalled(observed, obstacle, self.now)
        try:
            self._write(decided)
        except StaleError:
            return decided
        self._tell(decided)
        return decided

    def _carry_out(self, decided: Plan) -> Iterator[None]:
        """A yield before each step."""
        for action in decided.actions:
            yield
            self._do(action)
        yield
        self._write(decided)
        for removal in decided.after_status:
            yield
            self.removals.append(removal)
            self.removal_time = self.now
            self._do(removal)
        yield
        self._tell(decided)

    def _write(self, decided: Plan) -> None:
        if decided.status == self._cached_job.status:
            return
        if self._cached_job is not self.job:
            raise StaleError("conflict")
        self.job = self._cached_job = self.job.model_copy(update={"status": decided.status})

    def _tell(self, decided: Plan) -> None:
        self.events += [event.reason.value for event in decided.events]
        self.told += [event.message for event in decided.events]

    def _do(self, action: Action) -> None:
        match action:
            case Create(manifest):
                self._create(manifest)
            case DeleteJob(name, uid):
                self._answer(name, lambda: self.cluster.delete_job(uid))
            case EndJob(name, uid):
                self._answer(name, lambda: self._patched(uid, deadline=1))
            case QueueJob(name, uid, queue):
                self._answer(name, lambda: self._patched(uid, queue=queue))
            case DeletePods(_, pods):
                for pod in pods:
                    self.cluster.delete_pod(pod)

    def _patched(self, uid: str, **changes: Any) -> BatchJob:
        job = self.cluster.with_uid(uid)
        for name, value in changes.items():
            setattr(job, name, value)
        return job

    def _answer(self, name: str, request: Any) -> None:
        """What the API server answers goes into the store."""
        try:
            self._cached_jobs[name] = replace(request())
        except GoneError:
            self._cached_jobs.pop(name, None)

    def _create(self, manifest: dict[str, Any]) -> None:
        name = manifest["metadata"]["name"]
        if manifest["kind"] == "ConfigMap" and name == resolved_name(self.job.metadata.name):
            self.resolved = self.resolved or parse_resolved(manifest["data"])
        if manifest["kind"] != "Job":
            return
        if self.refusal is not None:
            raise ObstacleError(self.refusal)
        try:
            created = self.cluster.create(manifest, manifest["metadata"]["ownerReferences"][0]["uid"])
        except TakenError as error:
            there = error.job
            if self.is_ours(there) and not there.deleting:
                self._cached_jobs[name] = replace(there)
                raise StaleError(name) from error
            owner = f"FineTuneJob {self.job.metadata.name}, uid {there.owner}"
            raise ObstacleError(NameTaken("Job", name, owner, there.deleting)) from error
        self.made.add(created.uid)
        self._cached_jobs[name] = replace(created)

    # What happens

    def control(self) -> None:
        """What the cluster's controllers do in a moment."""
        self.cluster.act()

    def settle(self, times: int = 6) -> None:
        """Lets operator and controllers take turns, a second each, until nothing changes any more."""
        for _ in range(times):
            self.control()
            self.reconcile()
            self.pass_time(1)

    def pass_time(self, seconds: float) -> None:
        self.cluster.now += timedelta(seconds=seconds)

    def edit(self, **spec: Any) -> None:
        """A new generation of the spec."""
        metadata = self.job.metadata.model_copy(update={"generation": self.job.metadata.generation + 1})
        changed = self.job.spec.model_copy(update=spec)
        self.job = self.job.model_copy(update={"spec": changed, "metadata": metadata})

    def set_policy(self, **policy: Any) -> None:
        self.edit(run_policy=self.job.spec.run_policy.model_copy(update=policy))

    def take_name(self, stage: Stage) -> None:
        """Somebody else makes a Job with the name that ours needs, and lets it wait."""
        metadata = {"name": stage_name(self.job.metadata.name, stage), "labels": {LABEL_STAGE: stage.value}}
        self.cluster.create({"metadata": metadata, "spec": {"completions": 1, "suspend": True}}, "somebody")
        self.cluster.launches -= stage is Stage.TRAIN

    def give_names_back(self) -> None:
        self.cluster.jobs = [job for job in self.cluster.jobs if self.is_ours(job)]

    def run_pods(self) -> None:
        self.pass_time(1)
        self.cluster.run_pods()

    def change_pods(self, stage: Stage, **changes: Any) -> None:
        """Every live pod of the stage."""
        uid = self.jobs[stage].uid
        self.cluster.change_pods(lambda pod: pod.owner == uid and pod.alive, **changes)

    def end_pod(self, stage: Stage, index: int, code: ExitCode, message: str = "", **changes: Any) -> None:
        """The live pod of this index ends with a Result (or with `changes` over it)."""
        result: Result | None = a_result(stage, code, message or code.exit_name)
        phase = PodPhase.SUCCEEDED if code is ExitCode.OK else PodPhase.FAILED
        ended: dict[str, Any] = {"phase": phase, "exit_code": int(code), "finished": self.cluster.moment}
        uid = self.jobs[stage].uid
        self.cluster.change_pods(
            lambda pod: pod.owner == uid and pod.alive and pod.state.index == index,
            **(ended | {"result": result} | changes),
        )
        self.cluster.change_pods(
            lambda pod: pod.owner == uid and pod.state.exit_code is not None and not pod.state.ran,
            started=self.cluster.moment,
        )

    def end_well(self, stage: Stage) -> None:
        """Every pod of the stage ends well."""
        for index in range(self.jobs[stage].size):
            self.end_pod(stage, index, ExitCode.OK)

    def finish(self, stage: Stage) -> None:
        """The stage's Job completes, and the operator sees it."""
        self.control()
        self.end_well(stage)
        self.control()
        self.reconcile()

    def reach(self, stage: Stage) -> World:
        """Runs the stages before `stage`, starts that one, and lets its pods run."""
        self.reconcile()
        for earlier in list(Stage)[: list(Stage).index(stage)]:
            self.finish(earlier)
        self.settle()
        self.run_pods()
        self.reconcile()
        return self
