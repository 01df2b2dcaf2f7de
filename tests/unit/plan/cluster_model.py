"""What the planner's world is made of: a small, faithful model of Kubernetes around batch/v1 Jobs.

It plays the API server, the Job controller (foreground deletion, podReplacementPolicy Failed, FailJob, backoffLimit,
activeDeadlineSeconds, suspension), scheduler and kubelet, PodGC, Kueue and the garbage collector, each as a method
that does what that controller has to do at this moment. Which of them acts, and when, is the test's to say; the
back-off of the Job controller is left out, so that it replaces pods as soon as it ever might.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

from tests.unit.plan.builders import NOON, a_result

from finetune_operator.plan.model.names import LABEL_ATTEMPT, LABEL_QUEUE, LABEL_STAGE
from finetune_operator.plan.model.observed import PodPhase, PodState, StageJob
from finetune_trainer.contract import ExitCode, Stage

GRACE: Final = timedelta(seconds=120)
DEADLINE: Final = "DeadlineExceeded: Job was active longer than specified deadline"


class GoneError(Exception):
    """404 or 409: what was meant is not there any more, or is another."""


class TakenError(Exception):
    """409 AlreadyExists."""

    def __init__(self, job: BatchJob) -> None:
        super().__init__(job.name)
        self.job = job


@dataclass
class Pod:
    owner: str
    """Uid of its Job."""
    state: PodState

    @property
    def alive(self) -> bool:
        return not self.state.ended

    def change(self, **changes: Any) -> None:
        self.state = replace(self.state, **changes)


@dataclass
class BatchJob:
    """A batch/v1 Job."""

    manifest: dict[str, Any]
    uid: str
    created: datetime
    owner: str
    """Uid of its controller."""
    suspended: bool = False
    queue: str | None = None
    admitted: bool = False
    """Whether Kueue holds quota for it."""
    deadline: int | None = None
    started: datetime | None = None
    complete: bool = False
    failure_target: str = ""
    """What it is failing of, while its pods still go."""
    failure: str = ""
    deleting: bool = False
    succeeded: set[int] = field(default_factory=set)
    uncounted: int = 0
    """Pods that have ended and that its controller still takes for active."""
    not_created: str | None = None
    """What its events tell of pods that could not be made."""
    generation: int = 1
    """Counts changes of `suspended`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "suspended" and self.__dict__.get(name, value) != value:
            self.generation += 1
        super().__setattr__(name, value)

    @property
    def name(self) -> str:
        return str(self.manifest["metadata"]["name"])

    @property
    def stage(self) -> Stage:
        return Stage(self.manifest["metadata"]["labels"][LABEL_STAGE])

    @property
    def size(self) -> int:
        return int(self.manifest["spec"]["completions"])

    @property
    def has_ended(self) -> bool:
        return self.complete or bool(self.failure)

    def observed(self, pods: tuple[PodState, ...]) -> StageJob:
        return StageJob(
            name=self.name,
            uid=self.uid,
            created=self.created,
            attempt=int(self.manifest["metadata"]["labels"].get(LABEL_ATTEMPT, "1")),
            completions=self.size,
            suspended=self.suspended,
            created_suspended=self.suspended and self.generation == 1,
            active=sum(not pod.ended and not pod.deleting for pod in pods) + self.uncounted,
            complete=self.complete,
            failed=bool(self.failure),
            failure=self.failure,
            deleting=self.deleting,
            ending=self.deadline is not None,
            queued=self.queue is not None,
            not_created=self.not_created,
            pods=pods,
        )


class Cluster:
    """Everything that the API server keeps of Jobs and pods."""

    def __init__(self, *, kueue: bool = False, kueue_manages_all: bool = False) -> None:
        self.now = NOON
        self.jobs: list[BatchJob] = []
        self.pods: list[Pod] = []
        self.dead_nodes: set[str] = set()
        self.kueue = kueue
        self.kueue_manages_all = kueue_manages_all
        self.quota = True
        self.problem: str | None = None
        """Keeps new pods from running."""
        self.made = 0
        self.overlaps: set[str] = set()
        """Pods that were made while one of another Job of the same name was alive."""
        self.launches = 0
        """How often a training Job was created."""

    # The API server

    @property
    def moment(self) -> datetime:
        """As the API server writes it."""
        return self.now.replace(microsecond=0)

    def named(self, name: str) -> BatchJob | None:
        return next((job for job in self.jobs if job.name == name), None)

    def with_uid(self, uid: str) -> BatchJob:
        found = next((job for job in self.jobs if job.uid == uid), None)
        if found is None:
            raise GoneError(uid)
        return found

    def create(self, manifest: dict[str, Any], owner: str) -> BatchJob:
        there = self.named(manifest["metadata"]["name"])
        if there is not None:
            raise TakenError(there)
        self.made += 1
        spec, labels = manifest["spec"], manifest["metadata"]["labels"]
        job = BatchJob(
            manifest=manifest,
            uid=f"job-{self.made}",
            created=self.moment,
            owner=owner,
            suspended=bool(spec.get("suspend")) or (self.kueue and self.kueue_manages_all),
            queue=labels.get(LABEL_QUEUE),
            deadline=spec.get("activeDeadlineSeconds"),
        )
        self.jobs.append(job)
        self.launches += job.stage is Stage.TRAIN
        return job

    def delete_job(self, uid: str, *, foreground: bool = True) -> BatchJob:
        job = self.with_uid(uid)
        job.deleting = True
        if not foreground:
            self.jobs.remove(job)
        return job

    def delete_pod(self, name: str) -> None:
        """Gracefully. One that has ended goes at once: nothing is left to stop."""
        for pod in self.pods:
            if pod.state.name == name and pod.alive and pod.state.gone_by is None:
                pod.change(gone_by=self.moment + (GRACE if pod.state.node else timedelta()))
        self.pods = [pod for pod in self.pods if pod.state.name != name or pod.alive]

    def remove_pod(self, name: str) -> None:
        """By force."""
        self.pods = [pod for pod in self.pods if pod.state.name != name]

    def pods_of(self, job: BatchJob) -> list[Pod]:
        return [pod for pod in self.pods if pod.owner == job.uid]

    # The controllers

    def act(self) -> None:
        """All of them, until nothing is left to do at this moment."""
        for _ in range(3):
            self.queue_jobs()
            self.control_jobs()
            self.stop_pods()
            self.collect_garbage()

    def control_jobs(self) -> None:
        """The Job controller."""
        for job in self.jobs:
            pods = self.pods_of(job)
            job.succeeded |= {pod.state.index for pod in pods if pod.state.phase is PodPhase.SUCCEEDED}
            for pod in pods:
                if pod.state.deleting and pod.state.ended:
                    self.remove_pod(pod.state.name)
            if not (job.deleting or job.has_ended):
                self._control(job, pods)

    def _control(self, job: BatchJob, pods: list[Pod]) -> None:
        if job.suspended:
            job.started = None
        else:
            job.started = job.started or self.now
        job.failure_target = job.failure_target or self._failure(job, pods)
        if job.failure_target or job.suspended:
            for pod in pods:
                if pod.alive:
                    self.delete_pod(pod.state.name)
            alive = any(pod.alive for pod in self.pods_of(job))
            job.failure = job.failure_target if not alive else ""
        elif len(job.succeeded) >= job.size:
            job.complete = True
        else:
            self._fill(job)

    def _failure(self, job: BatchJob, pods: list[Pod]) -> str:
        failed = [pod.state for pod in pods if pod.state.phase is PodPhase.FAILED]
        for rule in job.manifest["spec"].get("podFailurePolicy", {}).get("rules", ()):
            final = [pod for pod in failed if pod.exit_code in rule.get("onExitCodes", {}).get("values", ())]
            if rule["action"] == "FailJob" and final:
                code = final[0].exit_code
                return f"PodFailurePolicy: Container trainer failed with exit code {code} matching FailJob rule"
        if sum(not pod.disrupted for pod in failed) > job.manifest["spec"].get("backoffLimit", 6):
            return "BackoffLimitExceeded: Job has reached the specified backoff limit"
        if job.deadline is not None and job.started is not None:
            over = self.now - job.started >= timedelta(seconds=job.deadline)
            return DEADLINE if over else ""
        return ""

    def _fill(self, job: BatchJob) -> None:
        """PodReplacementPolicy Failed: one that is being deleted keeps its place until it has ended."""
        taken = job.succeeded | {pod.state.index for pod in self.pods_of(job) if pod.alive}
        for index in sorted(set(range(job.size)) - taken):
            self.made += 1
            name = f"{job.name}-{index}-{self.made}"
            state = PodState(name=name, phase=PodPhase.PENDING, created=self.moment, index=index, problem=self.problem)
            if any(pod.alive and pod.owner != job.uid and pod.state.name.startswith(job.name) for pod in self.pods):
                self.overlaps.add(name)
            self.pods.append(Pod(job.uid, state))

    def run_pods(self) -> None:
        """Scheduler and kubelet: on one node for each rank, and another one for a node that is dead."""
        for pod in self.pods:
            if pod.state.phase is not PodPhase.PENDING or pod.state.deleting or pod.state.problem:
                continue
            candidates = (f"node-{pod.state.index}-{number}" for number in range(len(self.dead_nodes) + 1))
            node = next(node for node in candidates if node not in self.dead_nodes)
            pod.change(phase=PodPhase.RUNNING, started=self.moment, node=node)

    def stop_pods(self) -> None:
        """The kubelet: a trainer that is told to stop checkpoints, and says so. A dead node's kubelet says nothing."""
        for pod in self.pods:
            if not pod.state.deleting or not pod.alive or pod.state.node in self.dead_nodes:
                continue
            if not pod.state.ran:
                pod.change(phase=PodPhase.FAILED, finished=self.moment)
                continue
            job = next((job for job in self.jobs if job.uid == pod.owner), None)
            stage = job.stage if job is not None else Stage.TRAIN
            result = a_result(stage, ExitCode.INTERRUPTED, "told to stop")
            code = int(ExitCode.INTERRUPTED)
            pod.change(phase=PodPhase.FAILED, exit_code=code, result=result, finished=self.moment)

    def collect_garbage(self) -> None:
        """Foreground deletion: a Job stays until its pods are gone. What has no owner any more goes, too."""
        going = {job.uid for job in self.jobs if job.deleting}
        known = {job.uid for job in self.jobs}
        for pod in tuple(self.pods):
            if pod.owner in going or pod.owner not in known:
                self.delete_pod(pod.state.name)
                if pod.state.ended:
                    self.remove_pod(pod.state.name)
        left = {pod.owner for pod in self.pods}
        self.jobs = [job for job in self.jobs if not job.deleting or job.uid in left]

    def queue_jobs(self) -> None:
        """Kueue: starts what it has admitted, stops what it has not, and gives quota to what waits in a queue."""
        for job in self.jobs:
            manages = self.kueue and (job.queue is not None or self.kueue_manages_all)
            if not manages or job.has_ended or job.deleting:
                continue
            if not job.admitted and job.queue is not None and self.quota and job.suspended:
                job.admitted = True
            job.suspended = not job.admitted

    # What happens to a cluster

    def preempt(self, job: BatchJob) -> None:
        """Kueue takes the quota of an admitted Job away."""
        job.admitted, job.suspended = False, True

    def evict(self, name: str, reason: str = "EvictionByEvictionAPI") -> None:
        self.delete_pod(name)
        for pod in self.pods:
            if pod.state.name == name:
                pod.change(disrupted=True, reason=reason)

    def lose_node(self, node: str) -> None:
        """It never confirms anything again; the taint manager deletes its pods."""
        self.dead_nodes.add(node)
        for pod in tuple(self.pods):
            if pod.state.node == node and pod.alive:
                self.evict(pod.state.name, "DeletionByTaintManager")

    def remove_nodes(self) -> None:
        """Dead nodes are deleted, or tainted out-of-service: PodGC ends and removes their pods."""
        self.pods = [pod for pod in self.pods if pod.state.node not in self.dead_nodes or pod.state.ended]

    def change_pods(self, chosen: Callable[[Pod], bool], **changes: Any) -> None:
        for pod in self.pods:
            if chosen(pod):
                pod.change(**changes)
