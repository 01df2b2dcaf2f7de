"""A cluster in memory for the planner to run: what the API server keeps and what the Job controller does.

It carries out plans as the operator does - actions in order, then the status - and can be told to die
between any two of these.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from tests.unit.plan.builders import NOON, SETTINGS, a_job, a_result, a_template

from finetune_operator.api.resources import FineTuneJob, Template
from finetune_operator.api.status import ConditionStatus, ConditionType, JobStatus, Phase
from finetune_operator.plan.manifests.stages import parse_resolved
from finetune_operator.plan.model.names import LABEL_STAGE, resolved_name
from finetune_operator.plan.model.observed import Observed, PodPhase, PodState, Presence, StageJob
from finetune_operator.plan.model.plan import Action, Apply, DeleteJob, LabelAttempt, Plan, SetSuspend
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.planner import plan
from finetune_trainer.contract import ExitCode, Progress, Result, Stage


@dataclass
class SimulatedJob:
    """A batch/v1 Job."""

    manifest: dict[str, Any]
    created: datetime
    suspended: bool = False
    complete: bool = False
    failure: str = ""
    pods: list[PodState] = field(default_factory=list)

    @property
    def size(self) -> int:
        return int(self.manifest["spec"]["completions"])

    def observed(self) -> StageJob:
        return StageJob(
            name=self.manifest["metadata"]["name"],
            uid="job-uid",
            created=self.created,
            suspended=self.suspended,
            active=sum(not pod.ended for pod in self.pods),
            complete=self.complete,
            failed=bool(self.failure),
            failure=self.failure,
            pods=tuple(self.pods),
        )


class World:
    """One FineTuneJob and all that belongs to it."""

    def __init__(
        self, job: FineTuneJob | None = None, template: Template | None = None, settings: PlanSettings = SETTINGS
    ) -> None:
        self.now = NOON
        self.job = job or a_job()
        self.template: Template | None = template or a_template()
        self.settings = settings
        self.secrets: dict[str, Presence] = {}
        self.claims: dict[str, Presence] = {}
        self.resolved: ResolvedSpec | None = None
        self.jobs: dict[Stage, SimulatedJob] = {}
        self.progress: Progress | None = None
        self.launches = 0
        """How often the training Job was made."""
        self.events: list[str] = []
        self._pods_made = 0

    @property
    def status(self) -> JobStatus:
        return self.job.status or JobStatus()

    @property
    def phase(self) -> Phase:
        return self.status.phase

    def holds(self, kind: ConditionType) -> bool:
        condition = self.status.condition(kind)
        return condition is not None and condition.status is ConditionStatus.TRUE

    def observed(self) -> Observed:
        return Observed(
            job=self.job,
            template=self.template,
            secrets=self.secrets,
            claims=self.claims,
            resolved=self.resolved,
            stages={stage: job.observed() for stage, job in self.jobs.items()},
            progress=self.progress,
        )

    def plan(self) -> Plan:
        return plan(self.observed(), self.now, self.settings)

    def reconcile(self, *, dies_after: int | None = None) -> Plan:
        """Plans and carries out; dying after a number of actions also loses events and status."""
        decided = self.plan()
        for action in decided.actions[:dies_after]:
            self._do(action)
        if dies_after is None:
            self.job = self.job.model_copy(update={"status": decided.status})
            self.events += [event.reason.value for event in decided.events]
        return decided

    def settle(self, times: int = 6) -> None:
        """Lets operator and Job controller take turns until nothing changes any more."""
        for _ in range(times):
            self.control()
            self.reconcile()

    def control(self) -> None:
        """What the Job controller does in a moment: kill, make or count pods."""
        for job in self.jobs.values():
            if job.suspended or job.failure:
                job.pods = [pod for pod in job.pods if pod.ended]
            elif not job.complete:
                self._fill(job)

    def pass_time(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)

    def edit(self, **spec: Any) -> None:
        """A new generation of the spec."""
        metadata = self.job.metadata.model_copy(update={"generation": self.job.metadata.generation + 1})
        changed = self.job.spec.model_copy(update=spec)
        self.job = self.job.model_copy(update={"spec": changed, "metadata": metadata})

    def set_policy(self, **policy: Any) -> None:
        self.edit(run_policy=self.job.spec.run_policy.model_copy(update=policy))

    def run_pods(self, stage: Stage) -> None:
        self.change_pods(stage, phase=PodPhase.RUNNING)

    def change_pods(self, stage: Stage, **changes: Any) -> None:
        """Every pod that has not ended."""
        self._change(stage, lambda pod: pod if pod.ended else replace(pod, **changes))

    def lose_result(self, stage: Stage) -> None:
        """The stage is complete, and its pods are gone before anybody looked."""
        self.jobs[stage].pods, self.jobs[stage].complete = [], True

    def end_pod(self, stage: Stage, index: int, code: ExitCode, message: str = "", **changes: Any) -> None:
        """The live pod of this index ends with a Result (or with `changes` over it)."""
        result: Result | None = a_result(stage, code, message or code.exit_name)
        ended = PodPhase.SUCCEEDED if code is ExitCode.OK else PodPhase.FAILED

        def end(pod: PodState) -> PodState:
            if pod.ended or pod.index != index:
                return pod
            told: dict[str, Any] = {"exit_code": int(code), "finished": self.now, "result": result}
            return replace(pod, phase=ended, **(told | changes))

        self._change(stage, end)
        job = self.jobs[stage]
        if code.is_final:
            job.failure = f"PodFailurePolicy: Container trainer failed with exit code {int(code)} matching FailJob rule"
        job.complete = sum(pod.phase is PodPhase.SUCCEEDED for pod in job.pods) == job.size

    def finish(self, stage: Stage) -> None:
        """Every pod of the stage ends well."""
        self.control()
        for index in range(self.jobs[stage].size):
            self.end_pod(stage, index, ExitCode.OK)
        self.reconcile()

    def reach(self, stage: Stage) -> World:
        """Runs the stages before `stage`, starts that one, and lets its pods run."""
        self.reconcile()
        for earlier in list(Stage)[: list(Stage).index(stage)]:
            self.finish(earlier)
        self.settle()
        self.run_pods(stage)
        self.reconcile()
        return self

    def _change(self, stage: Stage, change: Callable[[PodState], PodState]) -> None:
        self.jobs[stage].pods = [change(pod) for pod in self.jobs[stage].pods]

    def _fill(self, job: SimulatedJob) -> None:
        taken = {pod.index for pod in job.pods if not pod.ended or pod.phase is PodPhase.SUCCEEDED}
        for index in sorted(set(range(job.size)) - taken):
            self._pods_made += 1
            name = f"{job.manifest['metadata']['name']}-{index}-{self._pods_made}"
            job.pods.append(PodState(name=name, phase=PodPhase.PENDING, created=self.now, index=index))

    def _do(self, action: Action) -> None:
        match action:
            case Apply(manifest):
                self._apply(manifest)
            case SetSuspend(name, suspend):
                job = self._named(name)
                job.suspended = suspend
            case LabelAttempt(pods, attempt):
                for job in self.jobs.values():
                    job.pods = [replace(pod, attempt=attempt) if pod.name in pods else pod for pod in job.pods]
            case DeleteJob(name):
                self.jobs = {s: job for s, job in self.jobs.items() if job.manifest["metadata"]["name"] != name}

    def _apply(self, manifest: dict[str, Any]) -> None:
        if manifest["kind"] == "Job":
            stage = Stage(manifest["metadata"]["labels"][LABEL_STAGE])
            self.launches += stage is Stage.TRAIN and stage not in self.jobs
            self.jobs.setdefault(stage, SimulatedJob(manifest, self.now))
        elif manifest["metadata"]["name"] == resolved_name(self.job.metadata.name):
            self.resolved = parse_resolved(manifest["data"])

    def _named(self, name: str) -> SimulatedJob:
        return next(job for job in self.jobs.values() if job.manifest["metadata"]["name"] == name)
