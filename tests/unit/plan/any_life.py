"""A job's life in which anything may happen, in any order, and what must hold all the while."""

from __future__ import annotations

from typing import Any, Final

import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from tests.unit.plan.builders import a_checkpoint, a_job, a_report
from tests.unit.plan.cluster_model import BatchJob, Cluster
from tests.unit.plan.world import KINDS, World

from finetune_operator.api.status import MAX_ATTEMPTS, JobStatus, Phase, Reason
from finetune_operator.plan.model.names import LABEL_QUEUE, stage_name
from finetune_operator.plan.model.observed import PodPhase, PodState
from finetune_operator.plan.model.plan import DeletePods, Fault, Plan, QueueJob, Refusal
from finetune_trainer.contract import ExitCode, Stage

FAILURES: Final = [code for code in ExitCode if code is not ExitCode.OK]
FAULTS: Final = [code for code in FAILURES if not code.is_final]
FINAL: Final = {Reason[code.name].value for code in FAILURES if code.is_final}
_LARGEST: Final = 32 * 1024
_QUEUES: Final = {"no kueue": {}, "queue": {LABEL_QUEUE: "team"}, "all in queues": {LABEL_QUEUE: "team"}, "all": {}}
_SURROUNDINGS: Final[dict[str, Refusal | Fault | None]] = {
    "dead nodes are removed": None,
    "quota comes or goes": None,
    "the scheduler has a problem, or none any more": None,
    "the API server refuses": Refusal(403, "Forbidden", "exceeded quota"),
    "the API server fails": Fault(5, "timeout"),
    "the API server is well": None,
    "a name is taken, or given back": None,
}
RANKS: Final = st.integers(0, 1)


class AnyLife(RuleBasedStateMachine):
    """A job on two nodes, its operator, its cluster and the people around it."""

    @initialize(
        budget=st.integers(0, 2),
        queues=st.sampled_from(sorted(_QUEUES)),
        prepared=st.sampled_from([True, True, True, False]),
    )
    def begin(self, budget: int, queues: str, prepared: bool) -> None:  # noqa: FBT001 - drawn
        cluster = Cluster(kueue=queues != "no kueue", kueue_manages_all=queues.startswith("all"))
        policy = {"maxRestarts": budget, "activeDeadlineSeconds": 1_000_000}
        self.queues = queues
        self.world = World(a_job(labels=_QUEUES[queues], runPolicy=policy), cluster=cluster)
        self.budget = budget
        self.faults = self.disturbances = self.steps = self.charged = 0
        self.orphans: set[str] = set()
        self.seen_steps = -1
        self.counted: set[int] = set()
        if prepared and queues != "all":
            self.world.reach(Stage.TRAIN)

    # The operator

    @rule(dies_after=st.integers(0, 6) | st.none(), sees=st.sets(st.sampled_from(KINDS)))
    def operator_falters(self, dies_after: int | None, sees: set[str]) -> None:
        self.reconcile(dies_after, sees if dies_after is None else set(KINDS))

    @rule()
    def operator_reconciles(self) -> None:
        self.reconcile()

    @rule()
    def all_goes_on(self) -> None:
        self.world.control()
        self.world.run_pods()
        self.reconcile()

    @rule()
    def operator_comes_to_rest(self) -> None:
        """Left alone, it does what there is to do and stops."""
        for _ in range(5):
            self.reconcile()
        before, told = self.world.status, len(self.world.events)
        decided = self.reconcile()
        assert (self.world.status, len(self.world.events)) == (before, told)
        assert not decided.actions or self.world.is_hindered
        self.is_told(decided)
        if decided.requeue_after is None or decided.requeue_after > 1:
            self.world.pass_time(0.5)
            self.reconcile()
            assert (self.world.status, len(self.world.events)) == (before, told), "changes by itself"

    def reconcile(self, dies_after: int | None = None, sees: set[str] | None = None) -> Plan:
        world = self.world
        before = world.status
        decided = world.reconcile(dies_after=dies_after, sees=KINDS if sees is None else sees)
        assert world.refusal or decided.status.phase is Phase.FAILED or not self.shows_user_error(before)
        self.touches_only_ours(decided)
        told = [event.message for event in decided.events]
        assert len(set(told)) == len(told), "everything is told once"
        self.keeps_within_budget()
        return decided

    def is_told(self, decided: Plan) -> None:
        """Every job has ended, or names what it waits for and looks again by itself unless something will tell."""
        status = self.world.status
        assert status.message
        assert status.reason in {reason.value for reason in Reason}
        wakes = self.world.jobs or status.phase is Phase.SUSPENDED or status.phase.is_terminal
        assert wakes or decided.requeue_after is not None

    def shows_user_error(self, before: JobStatus) -> bool:
        """Whether the operator was shown a training pod that ended by the user's fault, in a job that had not ended."""
        seen = self.world.last_seen.stages.get(Stage.TRAIN)
        if before.phase.is_terminal or seen is None or before.trained is not None:
            return False
        return any(pod.outcome is not None and pod.outcome.is_final for pod in seen.pods)

    def touches_only_ours(self, decided: Plan) -> None:
        ours = {job.name: job.uid for job in self.world.observed_jobs}
        pods = {pod.state.name: pod.owner for pod in self.world.observed_pods}
        held_since_creation = {job.name for job in self.world.observed_jobs if job.suspended and job.generation == 1}
        assert {action.job for action in decided.actions if isinstance(action, QueueJob)} <= held_since_creation
        for removal in decided.after_status:
            if isinstance(removal, DeletePods):
                assert all(pods.get(pod, ours[removal.job]) == ours[removal.job] for pod in removal.pods)
            else:
                assert removal.uid in self.world.made

    def keeps_within_budget(self) -> None:
        status = self.world.status
        verified = [checkpoint.step for checkpoint in status.checkpoints if checkpoint.verified]
        if max(verified, default=-1) > self.seen_steps:
            self.seen_steps, self.charged = max(verified), 0
        new = {attempt.number for attempt in status.attempts if attempt.counted} - self.counted
        self.counted |= new
        self.charged += len(new)
        assert self.charged <= self.budget
        assert len(self.counted) <= self.faults, "an attempt is charged at most once, and only for a fault"
        assert (status.attempt or 0) <= 1 + self.disturbances, "no healthy gang is ever restarted"

    # The cluster

    @rule(who=st.sampled_from(["queue_jobs", "control_jobs", "stop_pods", "collect_garbage", "act"]))
    def a_controller_acts(self, who: str) -> None:
        getattr(self.world.cluster, who)()

    @rule()
    def pods_run(self) -> None:
        self.world.run_pods()

    @rule(seconds=st.sampled_from([0.4, 1, 7, 200, 400]))
    def time_passes(self, seconds: float) -> None:
        self.world.pass_time(seconds)

    # The trainer

    @rule(steps=st.integers(1, 30))
    def trainer_saves(self, steps: int) -> None:
        """It reports the newest two of the checkpoints that there are."""
        self.get_going()
        if not self.is_training():
            return
        self.steps += steps
        saved = tuple(a_checkpoint(step) for step in {max(0, self.steps - 1), self.steps})
        self.world.progress = a_report(self.world.now, step=self.steps, checkpoints=saved)

    @rule(chance=st.integers(0, 3))
    def a_stage_ends_well(self, chance: int) -> None:
        """Training seldom: most of what can happen happens there."""
        self.get_going()
        job = self.running()
        if job is None or (job.stage is Stage.TRAIN and chance):
            return
        if len(self.live(job)) == job.size and not self.orphans & {pod.name for pod in self.live(job)}:
            self.world.end_well(job.stage)

    @rule(
        rank=RANKS,
        code=st.sampled_from(3 * FAULTS + FAILURES),
        speaks=st.booleans(),
        disrupted=st.sampled_from([False, False, True]),
    )
    def a_pod_fails(self, rank: int, code: ExitCode, speaks: bool, disrupted: bool) -> None:  # noqa: FBT001 - drawn
        self.get_going()
        job = self.running()
        if job is None or not any(pod.index == rank for pod in self.live(job)):
            return
        self.lose_rank(job, rank)
        self.faults += 1
        changes: dict[str, Any] = {} if speaks else {"result": None}
        self.world.end_pod(job.stage, rank, code, disrupted=disrupted, **changes)

    # Whoever else there is

    @rule(rank=RANKS, how=st.sampled_from(["evict", "delete_pod", "remove_pod", "lose_node"]))
    def a_pod_is_taken_away(self, rank: int, how: str) -> None:
        self.get_going()
        job = self.running()
        if job is None:
            return
        for pod in [pod for pod in self.live(job) if pod.index == rank]:
            self.lose_rank(job, rank)
            getattr(self.world.cluster, how)(pod.node or "" if how == "lose_node" else pod.name)

    @rule(what=st.sampled_from(["delete", "delete in the background", "suspend", "resume", "preempt"]))
    def somebody_touches_the_job(self, what: str) -> None:
        self.get_going()
        job = self.running()
        if job is None or job.complete:
            return
        self.disturbances += 1
        if what.startswith("delete"):
            self.world.sync("pods")  # no watch is so late that a pod is seen after the deletion of its Job
            self.world.cluster.delete_job(job.uid, foreground=what == "delete")
        elif what == "preempt" and job.admitted:
            self.world.cluster.preempt(job)
        elif not job.has_ended:
            job.suspended = what == "suspend"

    @rule(what=st.sampled_from(sorted(_SURROUNDINGS)), stage=st.sampled_from(Stage))
    def the_surroundings_change(self, what: str, stage: Stage) -> None:
        world, problem = self.world, "Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
        match what:
            case "dead nodes are removed":
                world.cluster.remove_nodes()
            case "quota comes or goes":
                world.cluster.quota = not world.cluster.quota
            case "the scheduler has a problem, or none any more":
                self.schedule(problem if world.cluster.problem is None else None)
            case "the API server refuses" | "the API server fails" | "the API server is well":
                world.refusal = _SURROUNDINGS[what]
            case "a name is taken, or given back":
                if world.is_hindered:
                    world.give_names_back()
                elif world.cluster.named(stage_name(world.job.metadata.name, stage)) is None:
                    world.take_name(stage)

    def schedule(self, problem: str | None) -> None:
        self.world.cluster.problem = problem
        self.world.cluster.change_pods(lambda pod: pod.state.phase is PodPhase.PENDING, problem=problem)

    @rule(what=st.sampled_from(["suspend", "resume", "resume", "budget", "deadline", "short deadline", "no deadline"]))
    def user_edits(self, what: str) -> None:
        self.disturbances += 1
        match what:
            case "suspend" | "resume":
                self.world.set_policy(suspend=what == "suspend")
            case "budget":
                self.budget += 1
                self.world.set_policy(max_restarts=self.budget)
            case _:
                limit = {"deadline": 1_000_000, "short deadline": 400, "no deadline": None}[what]
                self.world.set_policy(active_deadline_seconds=limit)

    # What holds

    @invariant()
    def only_one_gang_lives(self) -> None:
        assert not self.world.cluster.overlaps
        assert len({pod.owner for pod in self.world.cluster.pods if pod.alive and pod.owner in self.world.made}) <= 1

    @invariant()
    def a_verified_checkpoint_is_never_lost(self) -> None:
        verified = [checkpoint.step for checkpoint in self.world.status.checkpoints if checkpoint.verified]
        assert max(verified, default=-1) >= self.seen_steps

    @invariant()
    def attempts_are_numbered_without_a_gap_and_only_the_last_is_open(self) -> None:
        attempts = self.world.status.attempts
        numbers = [attempt.number for attempt in attempts]
        assert not numbers or numbers == list(range(numbers[0], numbers[0] + len(numbers)))
        assert all(attempt.is_over for attempt in attempts[:-1])

    @invariant()
    def an_attempt_runs_after_it_was_begun_and_before_its_end(self) -> None:
        for attempt in self.world.status.attempts:
            moments = [moment for moment in (attempt.start, attempt.running_since, attempt.end) if moment is not None]
            assert moments == sorted(moments)

    @invariant()
    def gpu_seconds_are_those_of_the_attempts(self) -> None:
        status = self.world.status
        if len(status.attempts) < MAX_ATTEMPTS:
            assert (status.gpu_seconds or 0) == sum(attempt.gpu_seconds or 0 for attempt in status.attempts)

    @invariant()
    def a_user_error_is_the_end(self) -> None:
        status = self.world.status
        assert status.phase is Phase.FAILED or status.reason not in FINAL

    @invariant()
    def a_started_job_stays_started_and_its_status_small(self) -> None:
        status = self.world.status
        assert status.start_time is None or self.world.resolved is not None
        assert len(status.model_dump_json(by_alias=True, exclude_none=True).encode()) < _LARGEST

    # In the end

    def teardown(self) -> None:
        """Once everything is well again the job ends: well, or as it had to."""
        if not hasattr(self, "world"):
            return
        self.heal()
        world = self.world
        world.set_policy(active_deadline_seconds=None)
        for _ in range(60):
            world.control()
            world.run_pods()
            decided = self.reconcile()
            if world.phase.is_terminal:
                break
            job = self.running()
            if job is not None and {pod.index for pod in self.live(job) if pod.phase is PodPhase.RUNNING} == set(
                range(job.size)
            ):
                if world.phase is Phase.TRAINING:
                    assert not self.orphans & {pod.name for pod in self.live(job)}, "left over of another gang"
                    world.end_well(job.stage)
                elif job.stage is not Stage.TRAIN:
                    world.end_well(job.stage)
            world.pass_time(max(1.0, min(decided.requeue_after or 5.0, 600.0)))
        if self.queues == "all" and not world.phase.is_terminal:
            assert world.status.reason == Reason.HELD
            assert "kueue.x-k8s.io/queue-name" in world.status.message
        else:
            assert world.phase.is_terminal, (world.status.reason, world.status.message)
        for _ in range(3):
            world.control()
            self.reconcile()
            world.pass_time(2)
        if world.phase is Phase.FAILED:
            assert not any(pod.alive for pod in world.cluster.pods), "a failed job's pods go"

    def heal(self) -> None:
        world, cluster = self.world, self.world.cluster
        self.schedule(None)
        cluster.quota, world.refusal = True, None
        world.give_names_back()
        cluster.remove_nodes()
        if world.job.spec.run_policy.suspend:
            self.disturbances += 1
            world.set_policy(suspend=False)
        for job in world.jobs.values():
            if not cluster.kueue or not (cluster.kueue_manages_all or job.queue):
                job.suspended = False
            elif job.suspended and job.generation > 1 and LABEL_QUEUE in world.job.metadata.labels:
                job.queue = "team"  # as the status says

    # Looking at the world

    def get_going(self) -> None:
        """There is something to trouble in a job that runs: what keeps it from running passes first."""
        for _ in range(8):
            job = self.running()
            if self.world.phase.is_terminal or (
                job is not None and {p.index for p in self.live(job) if p.is_up} == set(range(job.size))
            ):
                return
            self.heal()
            self.all_goes_on()
            self.world.pass_time(60)

    def running(self) -> BatchJob | None:
        """Our Job with live pods."""
        return next((job for job in self.world.jobs.values() if self.live(job)), None)

    def live(self, job: BatchJob) -> list[PodState]:
        return [pod.state for pod in self.world.cluster.pods_of(job) if pod.alive]

    def is_training(self) -> bool:
        job = self.running()
        if job is None or job.stage is not Stage.TRAIN:
            return False
        return {pod.index for pod in self.live(job) if pod.phase is PodPhase.RUNNING} == set(range(job.size))

    def lose_rank(self, job: BatchJob, rank: int) -> None:
        """Its peers cannot go on without it, once all of them ran."""
        self.disturbances += 1
        attempts = self.world.status.attempts
        ran = attempts and not attempts[-1].is_over and attempts[-1].running_since is not None
        if job.stage is Stage.TRAIN and ran:
            self.orphans |= {pod.name for pod in self.live(job) if pod.index != rank}
