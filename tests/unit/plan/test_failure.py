"""How prepare and publish fail, and how a deadline ends a job."""

from __future__ import annotations

import pytest
from tests.unit.plan.builders import a_job, a_result
from tests.unit.plan.world import World

from finetune_operator.api.status import ConditionType, Phase
from finetune_operator.plan.model.observed import PodPhase
from finetune_operator.plan.model.plan import EndJob
from finetune_trainer.contract import ExitCode, Stage


def test_bad_data_fails_the_job_before_any_gpu_is_taken_and_says_what_to_do() -> None:
    world = World().reach(Stage.PREPARE)
    said = a_result(
        Stage.PREPARE,
        ExitCode.INVALID_DATA,
        "360 of 1200 rows have no completion.",
        field="spec.datasets[0].uri",
        advice="Fix them.",
    )
    world.end_pod(Stage.PREPARE, 0, ExitCode.INVALID_DATA, result=said)
    world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.FAILED, "InvalidData")
    assert world.status.message == "spec.datasets[0].uri: 360 of 1200 rows have no completion. Fix them"
    assert Stage.TRAIN not in world.jobs
    assert world.events[-1] == "InvalidData"


@pytest.mark.parametrize("code", [code for code in ExitCode if code.is_final], ids=lambda code: code.exit_name)
def test_a_failure_without_advice_of_its_own_comes_with_the_usual_one(code: ExitCode) -> None:
    world = World().reach(Stage.PREPARE)
    world.end_pod(Stage.PREPARE, 0, code, "it cannot be")
    world.reconcile()
    assert world.status.message == f"it cannot be. {code.advice}"


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.PUBLISH])
def test_a_failure_that_may_pass_is_left_to_the_job_controller(stage: Stage) -> None:
    world = World().reach(stage)
    world.end_pod(stage, 0, ExitCode.CANNOT_WRITE, "the bucket does not answer")
    decided = world.reconcile()
    assert (decided.actions, decided.after_status) == ((), ())
    assert "tried again: the bucket does not answer" in world.status.message
    world.finish(stage)
    assert "tried again" not in world.status.message


@pytest.mark.parametrize("stage", [Stage.PREPARE, Stage.PUBLISH])
def test_a_job_that_has_been_tried_too_often_fails_with_its_last_words(stage: Stage) -> None:
    world = World().reach(stage)
    for attempt in range(4):
        world.pass_time(10)
        world.end_pod(stage, 0, ExitCode.CANNOT_WRITE, f"no room, try {attempt}")
        world.control()
    assert world.jobs[stage].failure.startswith("BackoffLimitExceeded")
    world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.FAILED, "CannotWrite")
    assert "no room, try 3" in world.status.message


def test_a_job_that_gave_up_and_whose_pods_are_gone_fails_in_its_own_words() -> None:
    world = World().reach(Stage.PREPARE)
    world.cluster.pods.clear()
    world.jobs[Stage.PREPARE].failure = "BackoffLimitExceeded: too often"
    world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.FAILED, "Internal")
    assert world.status.message == "the Job support-bot-prepare failed: BackoffLimitExceeded: too often"


def test_the_exit_code_in_a_jobs_own_words_comes_with_its_advice() -> None:
    world = World().reach(Stage.PREPARE)
    world.cluster.pods.clear()
    world.jobs[Stage.PREPARE].failure = "PodFailurePolicy: Container trainer failed with exit code 73"
    world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.FAILED, "CannotWrite")
    assert world.status.message.endswith(f"failed with exit code 73. {ExitCode.CANNOT_WRITE.advice}")


def test_a_failed_job_that_somebody_deletes_runs_again() -> None:
    world = World().reach(Stage.PREPARE)
    world.jobs[Stage.PREPARE].failure = "BackoffLimitExceeded: too often"
    world.cluster.delete_job(world.jobs[Stage.PREPARE].uid)
    world.settle()
    assert (world.phase, world.jobs[Stage.PREPARE].failure) == (Phase.PREPARING, "")


def test_the_milestone_that_was_not_reached_says_why() -> None:
    world = World().reach(Stage.TRAIN)
    world.end_pod(Stage.TRAIN, 0, ExitCode.DIVERGED)
    world.reconcile()
    condition = world.status.condition(ConditionType.TRAINED)
    assert condition is not None
    assert (condition.status.value, condition.reason) == ("False", "Diverged")
    assert world.holds(ConditionType.PREPARED)


def test_a_pod_that_died_without_a_word_is_told_by_its_log() -> None:
    world = World().reach(Stage.PREPARE)
    world.end_pod(Stage.PREPARE, 0, ExitCode.INVALID_CONFIG, result=None, last_words="Traceback\n  no such option")
    world.reconcile()
    assert "ended with exit code 64 (invalid-config): Traceback no such option" in world.status.message


@pytest.mark.parametrize("stage", list(Stage))
def test_the_deadline_ends_the_stage_that_runs_and_its_pods_go(stage: Stage) -> None:
    world = World(a_job(runPolicy={"activeDeadlineSeconds": 3600})).reach(stage)
    world.pass_time(3600 - (world.now - world.started).total_seconds() - 1)
    world.reconcile()
    assert world.removals == []
    world.pass_time(1)
    uid = world.jobs[stage].uid
    assert world.reconcile().after_status == (EndJob(f"support-bot-{stage}", uid),)
    assert (world.phase, world.status.reason) == (Phase.FAILED, "DeadlineExceeded")
    assert (
        f"not finished 1h00m after the start (spec.runPolicy.activeDeadlineSeconds); stopped in the stage {stage}"
        in (world.status.message)
    )
    assert all(attempt.is_over for attempt in world.status.attempts)
    world.pass_time(2)
    world.settle()
    assert not any(pod.alive for pod in world.cluster.pods)
    assert (world.phase, world.status.reason) == (Phase.FAILED, "DeadlineExceeded")


def test_a_deadline_comes_although_the_job_is_suspended() -> None:
    world = World(a_job(runPolicy={"activeDeadlineSeconds": 3600})).reach(Stage.TRAIN)
    world.set_policy(suspend=True)
    world.settle()
    assert world.reconcile().requeue_after == pytest.approx(3600, abs=30)
    world.pass_time(3600)
    world.reconcile()
    assert world.status.reason == "DeadlineExceeded"


def test_the_deadline_is_looked_at_to_the_second() -> None:
    world = World(a_job(runPolicy={"activeDeadlineSeconds": 3600}))
    assert world.reconcile().requeue_after == 3600
    world.pass_time(1234.5)
    assert world.reconcile().requeue_after == pytest.approx(2365.5)


def test_a_deadline_beyond_the_end_of_time_is_none() -> None:
    world = World(a_job())
    world.set_policy(active_deadline_seconds=10**12)
    world.reconcile()
    assert world.phase is Phase.PREPARING
    assert world.reconcile().requeue_after is None


def test_a_job_that_finishes_just_in_time_has_succeeded() -> None:
    world = World(a_job(runPolicy={"activeDeadlineSeconds": 3600})).reach(Stage.PUBLISH)
    world.pass_time(3600)
    world.finish(Stage.PUBLISH)
    assert world.phase is Phase.SUCCEEDED


@pytest.mark.parametrize("code", [ExitCode.INVALID_CONFIG, ExitCode.INTERNAL], ids=lambda code: code.exit_name)
def test_a_job_is_ended_only_when_its_controller_has_counted_the_failed_pod_whose_log_tells_why(code: ExitCode) -> None:
    world = World(a_job(gpus=2, gpusPerNode=1, runPolicy={"maxRestarts": 0})).reach(Stage.TRAIN)
    world.run_pods()
    world.reconcile()
    before = world.status
    world.end_pod(Stage.TRAIN, 1, code, "it cannot be")
    world.jobs[Stage.TRAIN].uncounted = 1
    decided = world.reconcile()
    assert (decided.after_status, decided.requeue_after) == ((), 1.0)
    assert world.status == before
    world.jobs[Stage.TRAIN].uncounted = 0
    decided = world.reconcile()
    assert [type(removal) for removal in decided.after_status] == [EndJob]
    assert world.phase is Phase.FAILED


@pytest.mark.parametrize("code", [ExitCode.INVALID_CONFIG, ExitCode.INTERNAL], ids=lambda code: code.exit_name)
def test_a_job_is_ended_only_when_the_kubelet_has_told_that_the_pod_has_ended_with_its_container(
    code: ExitCode,
) -> None:
    world = World(a_job(gpus=2, gpusPerNode=1, runPolicy={"maxRestarts": 0})).reach(Stage.TRAIN)
    world.run_pods()
    world.reconcile()
    before = world.status
    world.end_pod(Stage.TRAIN, 1, code, "it cannot be", phase=PodPhase.RUNNING)
    assert world.reconcile().after_status == ()
    assert world.status == before
    world.pass_time(11)  # a sidecar keeps the pod
    decided = world.reconcile()
    assert [type(removal) for removal in decided.after_status] == [EndJob]
    assert world.phase is Phase.FAILED


def test_a_job_whose_controller_is_down_fails_all_the_same() -> None:
    world = World(a_job(runPolicy={"maxRestarts": 0})).reach(Stage.TRAIN)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INVALID_CONFIG, "it cannot be")
    world.jobs[Stage.TRAIN].uncounted = 1
    world.pass_time(11)
    world.reconcile()
    assert world.phase is Phase.FAILED
