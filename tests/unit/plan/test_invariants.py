"""What holds whatever happens: pods fail in any way, the operator dies anywhere, users suspend at any time."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tests.unit.plan.builders import NOON, a_job, a_report, trained
from tests.unit.plan.world import World

from finetune_operator.api.status import (
    MAX_ATTEMPTS,
    MAX_CHECKPOINTS,
    MAX_MESSAGE,
    Attempt,
    Condition,
    ConditionStatus,
    ConditionType,
    JobStatus,
    Metrics,
    Phase,
    ProgressStatus,
    Provenance,
)
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.observed import PodPhase, PodState
from finetune_operator.plan.model.plan import Apply
from finetune_operator.plan.policies.failure_cause import cause_of
from finetune_trainer.contract import Artifact, CheckpointRef, ExitCode, PreparedData, Sample, Stage

FAULTS = [code for code in ExitCode if code is not ExitCode.OK and not code.is_final]


class AnyLife(RuleBasedStateMachine):
    """A job on two nodes whose operator may die after any action, before its status is written."""

    @initialize(budget=st.integers(0, 3), prepared=st.booleans())
    def begin(self, budget: int, prepared: bool) -> None:  # noqa: FBT001 - drawn
        self.world = World(a_job(runPolicy={"maxRestarts": budget, "activeDeadlineSeconds": 10_000_000}))
        self.budget = budget
        self.faults = 0
        self.free_causes = 0
        if prepared:
            self.world.reach(Stage.TRAIN)

    @rule(dies_after=st.none() | st.integers(0, 4))
    def operator_reconciles(self, dies_after: int | None) -> None:
        first, second = self.world.plan(), self.world.plan()
        assert first == second, "planning is a function of what is observed"
        self.world.reconcile(dies_after=dies_after)

    @rule()
    def controller_acts(self) -> None:
        self.world.control()

    @rule()
    def time_passes(self) -> None:
        self.world.pass_time(7)

    @rule(suspend=st.booleans())
    def user_suspends(self, suspend: bool) -> None:  # noqa: FBT001 - drawn
        if suspend != self.world.job.spec.run_policy.suspend:
            self.free_causes += 1
            self.world.set_policy(suspend=suspend)

    @rule(step=st.integers(0, 100))
    def trainer_reports(self, step: int) -> None:
        self.world.progress = a_report(self.world.now, step=step)

    @precondition(lambda self: Stage.TRAIN in self.world.jobs)
    @rule()
    def training_pods_run(self) -> None:
        self.world.run_pods(Stage.TRAIN)

    @precondition(lambda self: Stage.TRAIN in self.world.jobs)
    @rule(index=st.integers(0, 1), code=st.sampled_from(FAULTS), disrupted=st.booleans())
    def a_rank_fails(self, index: int, code: ExitCode, disrupted: bool) -> None:  # noqa: FBT001 - drawn
        alive = [pod for pod in self.world.jobs[Stage.TRAIN].pods if not pod.ended and pod.index == index]
        if not alive:
            return
        self.world.end_pod(Stage.TRAIN, index, code, disrupted=disrupted)
        self.faults += 1

    @precondition(lambda self: Stage.PREPARE in self.world.jobs and self.world.jobs[Stage.PREPARE].pods)
    @rule()
    def prepare_ends_well(self) -> None:
        self.world.end_pod(Stage.PREPARE, 0, ExitCode.OK)

    @precondition(lambda self: Stage.TRAIN in self.world.jobs and self.world.jobs[Stage.TRAIN].pods)
    @rule()
    def training_ends_well(self) -> None:
        for index in (0, 1):
            self.world.end_pod(Stage.TRAIN, index, ExitCode.OK)

    @invariant()
    def restarts_hold_within_the_budget(self) -> None:
        assert self.world.status.restarts <= self.budget
        assert self.world.status.restarts <= self.faults, "an attempt is charged at most once"

    @invariant()
    def counted_attempts_are_the_restarts(self) -> None:
        attempts_seen = self.world.status.attempts
        if len(attempts_seen) < MAX_ATTEMPTS:
            assert sum(attempt.counted for attempt in attempts_seen) == self.world.status.restarts

    @invariant()
    def attempts_are_numbered_without_a_gap_and_only_the_last_is_open(self) -> None:
        numbers = [attempt.number for attempt in self.world.status.attempts]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True
        assert all(attempt.end for attempt in self.world.status.attempts[:-1])

    @invariant()
    def a_started_job_stays_started(self) -> None:
        if self.world.status.start_time is not None:
            assert self.world.resolved is not None

    def teardown(self) -> None:
        """Left in peace, the job comes to rest, and then needs nothing more."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.set_policy(suspend=False)
        for _ in range(12):
            world.settle()
            if world.phase.is_terminal or Stage.TRAIN not in world.jobs:
                break
            world.run_pods(Stage.TRAIN)
            world.reconcile()
            if world.phase is Phase.TRAINING:
                break
        assert world.phase in (Phase.PREPARING, Phase.TRAINING, Phase.PUBLISHING, Phase.FAILED)
        again = world.plan()
        assert (again.status, again.actions, again.events) == (world.status, (), ())


TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@given(fault=st.sampled_from(FAULTS), dies=st.lists(st.integers(0, 3), max_size=12), index=st.integers(0, 1))
def test_a_fault_is_charged_once_wherever_the_operator_dies(fault: ExitCode, dies: list[int], index: int) -> None:
    world = World(a_job(runPolicy={"maxRestarts": 2})).reach(Stage.TRAIN)
    world.end_pod(Stage.TRAIN, index, fault)
    for dies_after in dies:
        world.control()
        world.reconcile(dies_after=dies_after)
    world.settle()
    assert world.status.restarts == (0 if fault.is_free else 1)
    assert world.status.attempt == 2


@given(
    st.permutations(
        [
            PodState("a", PodPhase.FAILED, NOON, exit_code=76, finished=NOON),
            PodState("b", PodPhase.FAILED, NOON, exit_code=70, finished=NOON),
            PodState("c", PodPhase.FAILED, NOON, exit_code=75, finished=NOON),
            PodState("d", PodPhase.RUNNING, NOON),
        ]
    )
)
def test_the_cause_does_not_depend_on_the_order_of_the_pods(pods: list[PodState]) -> None:
    cause = cause_of(pods)
    assert cause is not None
    assert cause.code is ExitCode.INTERNAL


def test_no_checkpoint_is_lost_by_any_decision() -> None:
    """The operator never deletes a workspace claim, nor a job's checkpoints: no action can."""
    world = World(a_job(runPolicy={"maxRestarts": 1})).reach(Stage.TRAIN)
    world.progress = a_report()
    world.reconcile()
    before = world.status.checkpoints
    world.progress = None
    for _ in range(2):
        world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
        world.settle()
    assert world.phase is Phase.FAILED
    assert world.status.checkpoints == before


def test_the_largest_status_stays_below_32_kib() -> None:
    long, name = "é" * (MAX_MESSAGE // 2), "n" * 200
    status = JobStatus(
        phase=Phase.FAILED,
        message=long,
        start_time=NOON,
        completion_time=NOON,
        conditions=tuple(
            Condition(
                type=kind,
                status=ConditionStatus.FALSE,
                reason="RestartsExhausted",
                message=long if kind in (ConditionType.READY, ConditionType.STALLED, ConditionType.FAILED) else name,
                last_transition_time=NOON,
                observed_generation=9,
            )
            for kind in ConditionType
        ),
        progress=ProgressStatus(message=name, percent="100%", eta="23h59m", updated_at=NOON),
        metrics=Metrics(loss="1.234", eval_loss="1.234", base_eval_loss="1.234"),
        dataset=PreparedData(
            format="chat", rows=10**9, train_rows=10**9, eval_rows=0, invalid_reasons=(name,) * 5, digest="d" * 64
        ),
        trained=trained(),
        checkpoints=tuple(
            CheckpointRef(step=step, uri="s3://" + name, verified=True, bytes=10**12) for step in range(MAX_CHECKPOINTS)
        ),
        artifacts=tuple(Artifact(kind="adapter", uri="s3://" + name, sha256="f" * 64, bytes=10**12) for _ in range(3)),
        samples=tuple(Sample(prompt=name, before=name, after=name) for _ in range(5)),
        attempts=tuple(
            attempts.end(Attempt(number=number, start=NOON), NOON, "out-of-memory", exit_code=71, message=long)
            for number in range(MAX_ATTEMPTS)
        ),
        provenance=Provenance(config_hash="c" * 64, template=name, image=name, operator_version="0.1.0"),
    )
    assert len(status.model_dump_json(by_alias=True, exclude_none=True).encode()) < 32 * 1024


def test_nothing_that_is_applied_sets_suspend() -> None:
    world = World()
    manifests = [action.manifest for action in world.plan().actions if isinstance(action, Apply)]
    assert all("suspend" not in manifest.get("spec", {}) for manifest in manifests)
