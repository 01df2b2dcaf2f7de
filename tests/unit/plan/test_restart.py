"""One rank lost: the gang goes down and comes back, within the budget."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.plan.builders import a_checkpoint, a_job, a_report
from tests.unit.plan.training import a_training, come_back, save
from tests.unit.plan.world import World

from finetune_operator.api.status import ConditionType, Phase
from finetune_operator.plan.model.plan import DeleteJob
from finetune_trainer.contract import ExitCode, Stage

FREE: list[tuple[ExitCode, dict[str, Any]]] = [
    (ExitCode.INTERRUPTED, {}),
    (ExitCode.KILLED, {"disrupted": True, "reason": "Evicted", "result": None}),
    (ExitCode.INTERNAL, {"disrupted": True, "reason": "DeletionByTaintManager", "result": None}),
    (ExitCode.KILLED, {"exit_code": 143, "result": None}),
]


def test_the_first_attempt_begins_with_the_training_job_and_knows_when_all_its_pods_ran() -> None:
    world = World()
    world.reconcile()
    world.finish(Stage.PREPARE)
    world.control()
    (attempt,) = world.status.attempts
    assert (attempt.number, attempt.start, attempt.running_since) == (1, world.now, None)
    world.run_pods()
    world.reconcile()
    (attempt,) = world.status.attempts
    assert (attempt.running_since, attempt.end, world.phase) == (world.now, None, Phase.TRAINING)


def test_a_lost_rank_is_in_the_status_before_its_gang_is_taken_down() -> None:
    world = a_training()
    uid = world.jobs[Stage.TRAIN].uid
    world.end_pod(Stage.TRAIN, 1, ExitCode.INTERNAL, "the data loader died")
    decided = world.plan()
    assert (decided.actions, decided.after_status) == ((), (DeleteJob("support-bot-train", uid),))
    assert decided.status.reason == "Restarting"
    assert "the data loader died" in decided.status.message
    assert decided.status.attempts[-1].end == world.now
    assert decided.requeue_after == 30
    world.reconcile()
    assert world.holds(ConditionType.RECONCILING)
    assert not world.holds(ConditionType.STALLED)


def test_the_gang_comes_back_as_the_next_attempt_with_a_job_of_its_own_once_every_pod_is_gone() -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 1, ExitCode.INTERNAL)
    world.reconcile()
    assert world.jobs[Stage.TRAIN].deleting
    waiting = world.reconcile()
    assert (waiting.actions, waiting.after_status) == ((), ()), "its name is taken until its pods are gone"
    assert "to be deleted" in world.status.message
    come_back(world)
    assert (world.phase, world.status.attempt, world.status.restarts) == (Phase.TRAINING, 2, 1)
    assert world.jobs[Stage.TRAIN].manifest["metadata"]["labels"]["finetune-operator.io/attempt"] == "2"
    assert [attempt.reason for attempt in world.status.attempts] == ["internal", None]
    assert world.events[-4:] == ["Training", "Restarting", "Queued", "Training"]


def test_the_restart_names_the_checkpoint_that_it_begins_with_and_what_it_costs() -> None:
    world = a_training()
    save(world, 40)
    world.end_pod(Stage.TRAIN, 1, ExitCode.PEER_LOST)
    world.reconcile()
    assert "the checkpoint of step 40 (restart 1 of 3)" in world.status.message


def test_without_a_checkpoint_that_lasts_the_restart_begins_at_the_beginning() -> None:
    world = World(a_job(output={"uri": "s3://team/out"})).reach(Stage.TRAIN)
    save(world, 40)
    world.end_pod(Stage.TRAIN, 1, ExitCode.PEER_LOST)
    world.reconcile()
    assert "restart from the beginning" in world.status.message


@pytest.mark.parametrize(("code", "changes"), FREE, ids=["sigterm", "eviction", "node lost", "sigterm without a word"])
def test_a_restart_that_the_cluster_caused_is_not_counted(code: ExitCode, changes: dict[str, Any]) -> None:
    world = a_training(maxRestarts=0)
    world.end_pod(Stage.TRAIN, 0, code, **changes)
    world.settle()
    assert (world.phase, world.status.attempt, world.status.restarts) == (Phase.QUEUED, 2, 0)
    assert world.status.attempts[0].reason == "interrupted"
    assert not world.status.attempts[0].counted


def test_a_pod_that_somebody_deletes_takes_its_gang_along_free_of_charge() -> None:
    world = a_training(maxRestarts=0)
    world.cluster.delete_pod(world.pod(Stage.TRAIN, 1).name)
    world.cluster.stop_pods()
    world.settle()
    assert (world.status.attempt, world.status.restarts) == (2, 0)


def test_a_pod_that_is_killed_while_it_is_deleted_is_nobodys_fault() -> None:
    world = a_training(maxRestarts=0)
    world.cluster.delete_pod(world.pod(Stage.TRAIN, 1).name)
    world.end_pod(Stage.TRAIN, 1, ExitCode.KILLED, result=None)
    world.reconcile()
    assert (world.phase, world.status.attempts[-1].reason) == (Phase.QUEUED, "interrupted")


@pytest.mark.parametrize(
    "code", [ExitCode.INTERNAL, ExitCode.CANNOT_WRITE, ExitCode.PEER_LOST, ExitCode.KILLED], ids=lambda c: c.exit_name
)
def test_a_fault_is_counted(code: ExitCode) -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, code)
    world.settle()
    assert (world.status.attempt, world.status.restarts) == (2, 1)
    assert world.status.attempts[0].counted
    assert world.status.attempts[0].exit_code == int(code)


def test_when_the_budget_is_used_the_job_fails_with_what_happened_last_and_its_pods_go() -> None:
    world = a_training(maxRestarts=1)
    for _ in range(2):
        world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL, "the data loader died")
        come_back(world)
    assert (world.phase, world.status.reason) == (Phase.FAILED, "RestartsExhausted")
    assert "the data loader died. All 1 restart of spec.runPolicy.maxRestarts are used" in world.status.message
    assert world.status.restarts == 1
    assert [attempt.counted for attempt in world.status.attempts] == [True, False]
    world.pass_time(2)
    world.settle()
    assert [pod.phase.value for pod in world.pods(Stage.TRAIN)] == ["Failed"], "the GPUs are given back"


def test_the_budget_is_for_faults_without_progress_in_between() -> None:
    world = a_training(maxRestarts=1)
    for step in (10, 20, 30, 40):
        world.pass_time(60)
        save(world, step)
        world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
        come_back(world)
    assert (world.phase, world.status.attempt, world.status.restarts) == (Phase.TRAINING, 5, 1)


def test_the_same_checkpoint_again_is_no_progress() -> None:
    world = a_training(maxRestarts=1)
    for _ in range(2):
        save(world, 40)
        world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
        come_back(world)
    assert world.status.reason == "RestartsExhausted"


def test_an_unverified_checkpoint_is_no_progress() -> None:
    world = a_training(maxRestarts=1)
    for step in (10, 20):
        torn = a_checkpoint(step).model_copy(update={"verified": False})
        world.progress = a_report(world.now, checkpoints=(torn,))
        world.reconcile()
        world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
        come_back(world)
    assert world.status.reason == "RestartsExhausted"


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
    assert (world.status.attempts[-1].reason, world.status.restarts) == ("interrupted", 0)


@pytest.mark.parametrize("code", [code for code in ExitCode if code.is_final], ids=lambda code: code.exit_name)
def test_a_failure_that_would_come_again_ends_the_job_at_once(code: ExitCode) -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 1, code, "it cannot be")
    world.reconcile()
    assert world.phase is Phase.FAILED
    assert world.status.reason == code.exit_name.title().replace("-", "")
    assert "it cannot be" in world.status.message
    assert world.holds(ConditionType.STALLED)
    assert world.holds(ConditionType.FAILED)
    assert not world.holds(ConditionType.READY)
    assert (world.status.attempts[-1].exit_code, world.status.restarts) == (int(code), 0)
    assert world.status.completion_time == world.now


def test_a_final_failure_counts_although_the_attempt_had_ended_for_another_reason() -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.PEER_LOST)
    world.reconcile()
    world.end_pod(Stage.TRAIN, 1, ExitCode.DIVERGED, "the loss is NaN")
    world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.FAILED, "Diverged")
    assert world.status.attempts[-1].reason == "peer-lost", "an attempt ends once"


def test_a_job_that_failed_is_judged_by_its_own_words_when_its_pods_are_gone() -> None:
    world = a_training()
    world.cluster.pods.clear()
    world.jobs[Stage.TRAIN].failure = "PodFailurePolicy: Container trainer for pod x failed with exit code 65 matching"
    world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.FAILED, "InvalidData")


def test_a_training_job_that_failed_without_a_final_cause_is_recreated_and_charged() -> None:
    world = a_training()
    world.cluster.pods.clear()
    world.jobs[Stage.TRAIN].failure = "BackoffLimitExceeded: Job has reached the specified backoff limit"
    uid = world.jobs[Stage.TRAIN].uid
    assert world.reconcile().after_status == (DeleteJob("support-bot-train", uid),)
    world.settle()
    assert (world.status.attempt, world.status.restarts, world.jobs[Stage.TRAIN].failure) == (2, 1, "")


def test_a_job_that_fails_by_a_deadline_that_the_status_does_not_tell_of_starts_again_uncharged() -> None:
    world = a_training(maxRestarts=0)
    world.jobs[Stage.TRAIN].deadline = 1
    world.pass_time(5)
    world.control()
    world.settle()
    assert (world.phase, world.status.attempt, world.status.restarts) == (Phase.QUEUED, 2, 0)


def test_a_gang_in_which_one_rank_has_ended_well_comes_back_with_all_of_its_ranks() -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.OK)
    world.end_pod(Stage.TRAIN, 1, ExitCode.INTERNAL)
    world.settle()
    assert [pod.index for pod in world.pods(Stage.TRAIN)] == [0, 1]
    assert world.status.attempt == 2


@pytest.mark.parametrize("foreground", [True, False])
def test_a_job_that_somebody_deleted_is_launched_again_as_another_attempt_once_its_pods_are_gone(
    foreground: bool,  # noqa: FBT001 - drawn
) -> None:
    world = a_training(maxRestarts=0)
    world.cluster.delete_job(world.jobs[Stage.TRAIN].uid, foreground=foreground)
    world.reconcile()
    world.reconcile()
    assert world.cluster.launches == 1, "its pods still run"
    come_back(world)
    assert (world.status.attempt, world.status.restarts, world.cluster.launches) == (2, 0, 2)
    assert world.status.attempts[0].reason == "interrupted"
