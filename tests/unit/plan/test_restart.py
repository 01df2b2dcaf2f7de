"""One rank lost: the gang goes down and comes back, within the budget."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.plan.builders import a_checkpoint, a_job, a_report
from tests.unit.plan.world import World

from finetune_operator.api.status import ConditionType, Phase
from finetune_operator.plan.model import names
from finetune_operator.plan.model.plan import DeleteJob, LabelAttempt, SetSuspend
from finetune_trainer.contract import ExitCode, Stage


def a_training(**policy: int) -> World:
    return World(a_job(runPolicy=policy)).reach(Stage.TRAIN)


def test_the_first_attempt_begins_with_the_training_job() -> None:
    (attempt,) = a_training().status.attempts
    assert (attempt.number, attempt.end) == (1, None)


def test_a_lost_rank_takes_the_gang_down_and_labels_its_pods() -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 1, ExitCode.INTERNAL)
    decided = world.reconcile()
    names_of_pods = tuple(pod.name for pod in world.jobs[Stage.TRAIN].pods)
    assert decided.actions == (LabelAttempt(names_of_pods, 1), SetSuspend("support-bot-train", suspend=True))
    assert world.status.reason == "Restarting"
    assert world.holds(ConditionType.RECONCILING)


def test_the_gang_comes_back_as_the_next_attempt_once_every_pod_is_gone() -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 1, ExitCode.INTERNAL)
    world.reconcile()
    assert world.reconcile().actions == ()
    world.control()
    assert world.reconcile().actions == (DeleteJob("support-bot-train"),)
    world.reconcile()
    assert Stage.TRAIN in world.jobs
    world.control()
    world.run_pods(Stage.TRAIN)
    world.reconcile()
    assert (world.phase, world.status.attempt, world.status.restarts) == (Phase.TRAINING, 2, 1)
    assert [attempt.reason for attempt in world.status.attempts] == ["internal", None]
    assert world.events[-4:] == ["Training", "Restarting", "Queued", "Training"]


def test_the_restart_names_the_checkpoint_that_it_begins_with() -> None:
    world = a_training()
    world.progress = a_report(checkpoints=(a_checkpoint(40),))
    world.reconcile()
    world.end_pod(Stage.TRAIN, 1, ExitCode.PEER_LOST)
    world.reconcile()
    assert "the checkpoint of step 40 (restart 1 of 3)" in world.status.message


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        (ExitCode.INTERRUPTED, {}),
        (ExitCode.KILLED, {"disrupted": True, "reason": "Evicted", "result": None}),
        (ExitCode.INTERNAL, {"disrupted": True, "reason": "DeletionByTaintManager", "result": None}),
        (ExitCode.KILLED, {"exit_code": 143, "result": None}),
        (ExitCode.KILLED, {"deleting": True, "result": None}),
    ],
    ids=["sigterm", "eviction", "node lost", "sigterm without a word", "deleted by hand"],
)
def test_a_restart_that_the_cluster_caused_is_not_counted(code: ExitCode, changes: dict[str, Any]) -> None:
    world = a_training(maxRestarts=0)
    world.end_pod(Stage.TRAIN, 0, code, **changes)
    world.settle()
    assert (world.phase, world.status.attempt, world.status.restarts) == (Phase.QUEUED, 2, 0)
    assert world.status.attempts[0].reason == "interrupted"


@pytest.mark.parametrize(
    "code", [ExitCode.INTERNAL, ExitCode.CANNOT_WRITE, ExitCode.PEER_LOST, ExitCode.KILLED], ids=lambda c: c.exit_name
)
def test_a_fault_is_counted(code: ExitCode) -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, code)
    world.settle()
    assert (world.status.attempt, world.status.restarts) == (2, 1)


def test_when_the_budget_is_used_the_job_fails_with_what_happened_last() -> None:
    world = a_training(maxRestarts=1)
    for _ in range(2):
        world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL, "the data loader died")
        world.settle()
    assert world.phase is Phase.FAILED
    assert world.status.reason == "RestartsExhausted"
    assert "the data loader died" in world.status.message
    assert world.jobs[Stage.TRAIN].suspended, "the pods that are left must give their GPUs back"
    assert world.status.restarts == 1


def test_of_several_failures_the_one_that_explains_the_others_is_shown() -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.PEER_LOST, "rank 1 is gone")
    world.pass_time(1)
    world.end_pod(Stage.TRAIN, 1, ExitCode.KILLED, result=None, reason="OOMKilled")
    world.reconcile()
    assert "OOMKilled" in world.status.message
    assert "resources.limits.memory" in world.status.message
    assert world.status.attempts[-1].reason == "killed"


def test_a_drained_node_is_the_cause_even_when_its_peer_failed_first() -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.PEER_LOST)
    world.pass_time(1)
    world.end_pod(Stage.TRAIN, 1, ExitCode.KILLED, result=None, disrupted=True, reason="EvictionByEvictionAPI")
    world.reconcile()
    assert world.status.attempts[-1].reason == "interrupted"
    assert world.status.restarts == 0


@pytest.mark.parametrize("code", [code for code in ExitCode if code.is_final], ids=lambda code: code.exit_name)
def test_a_failure_that_would_come_again_ends_the_job_at_once(code: ExitCode) -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 1, code, "it cannot be")
    world.reconcile()
    assert world.phase is Phase.FAILED
    assert world.status.reason == code.exit_name.title().replace("-", "")
    assert world.holds(ConditionType.STALLED)
    assert world.holds(ConditionType.FAILED)
    assert not world.holds(ConditionType.READY)
    assert world.status.attempts[-1].exit_code == int(code)


def test_a_final_failure_counts_although_the_attempt_had_ended_for_another_reason() -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.PEER_LOST)
    world.reconcile()
    world.end_pod(Stage.TRAIN, 1, ExitCode.DIVERGED, "the loss is NaN")
    world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.FAILED, "Diverged")


def test_a_job_that_failed_is_judged_by_its_own_words_when_its_pods_are_gone() -> None:
    world = a_training()
    job = world.jobs[Stage.TRAIN]
    job.pods, job.failure = [], "PodFailurePolicy: Container trainer for pod x failed with exit code 65 matching"
    world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.FAILED, "InvalidData")


def test_a_training_job_that_failed_without_a_final_cause_is_made_anew_and_charged() -> None:
    world = a_training()
    job = world.jobs[Stage.TRAIN]
    job.pods, job.failure = [], "BackoffLimitExceeded: Job has reached the specified backoff limit"
    world.reconcile()
    assert world.reconcile().actions == (DeleteJob("support-bot-train"),)
    world.settle()
    assert (world.status.attempt, world.status.restarts, world.jobs[Stage.TRAIN].failure) == (2, 1, "")


def test_a_job_in_a_kueue_queue_keeps_its_place_over_a_restart() -> None:
    world = World(a_job(labels={names.LABEL_QUEUE: "team"})).reach(Stage.TRAIN)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.settle()
    assert world.launches == 1
    assert world.jobs[Stage.TRAIN].suspended
    world.jobs[Stage.TRAIN].suspended = False
    world.settle()
    assert (world.status.attempt, world.status.restarts, world.launches) == (2, 1, 1)


def test_a_gang_in_which_one_rank_has_ended_well_comes_back_with_all_of_its_ranks() -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.OK)
    world.end_pod(Stage.TRAIN, 1, ExitCode.INTERNAL)
    world.settle()
    assert [pod.index for pod in world.jobs[Stage.TRAIN].pods] == [0, 1]
    assert world.status.attempt == 2


def test_a_job_that_somebody_deleted_is_launched_again_as_another_attempt() -> None:
    world = a_training()
    del world.jobs[Stage.TRAIN]
    world.reconcile()
    assert (world.status.attempt, world.status.restarts) == (2, 0)
    assert Stage.TRAIN in world.jobs


def test_a_job_that_waits_in_a_kueue_queue_is_never_resumed_by_us() -> None:
    world = World(a_job(labels={names.LABEL_QUEUE: "team"})).reach(Stage.TRAIN)
    world.jobs[Stage.TRAIN].suspended = True
    world.control()
    decided = world.reconcile()
    assert decided.actions == ()
    assert (world.phase, world.status.message) == (
        Phase.QUEUED,
        "the Job support-bot-train waits in its Kueue queue",
    )


def test_a_job_that_kueue_preempts_goes_on_as_another_attempt_when_kueue_lets_it() -> None:
    world = World(a_job(labels={names.LABEL_QUEUE: "team"})).reach(Stage.TRAIN)
    world.jobs[Stage.TRAIN].suspended = True
    for index in (0, 1):
        world.end_pod(Stage.TRAIN, index, ExitCode.INTERRUPTED)
    world.settle()
    assert world.jobs[Stage.TRAIN].suspended
    world.jobs[Stage.TRAIN].suspended = False
    world.settle()
    assert (world.status.attempt, world.status.restarts) == (2, 0)


def test_a_suspension_that_nobody_wants_is_undone() -> None:
    world = a_training()
    world.jobs[Stage.TRAIN].suspended = True
    world.settle()
    assert not world.jobs[Stage.TRAIN].suspended
    assert (world.status.attempt, world.status.restarts) == (2, 0)


def test_the_history_of_attempts_is_bounded() -> None:
    world = a_training(maxRestarts=40)
    for _ in range(30):
        world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
        world.settle()
    assert len(world.status.attempts) == 16
    assert (world.status.attempt, world.status.restarts) == (31, 30)


def test_an_attempt_that_no_status_has_heard_of_is_still_charged() -> None:
    """Each time the operator dies just before it writes the status: of the resumption, then of the next end."""
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    world.control()
    world.reconcile()
    world.reconcile(dies_after=3)
    world.control()
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile(dies_after=2)
    world.control()
    assert (world.status.attempt, world.jobs[Stage.TRAIN].suspended) == (1, True)
    world.settle()
    assert (world.status.attempt, world.status.restarts, world.launches) == (3, 2, 3)


def test_the_pods_of_an_attempt_that_kueue_replaces_at_once_are_not_taken_for_the_next() -> None:
    world = World(a_job(labels={names.LABEL_QUEUE: "team"})).reach(Stage.TRAIN)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    world.control()
    world.jobs[Stage.TRAIN].suspended = False
    world.settle()
    assert (world.status.attempt, world.status.restarts) == (2, 1)
