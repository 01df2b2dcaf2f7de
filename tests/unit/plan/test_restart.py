"""One rank lost: the gang goes down and comes back, within the budget."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.plan.builders import a_checkpoint, a_job, a_report, a_result
from tests.unit.plan.world import World

from finetune_operator.api.status import ConditionType, Phase
from finetune_operator.plan.model.plan import DeleteJob, Refusal
from finetune_trainer.contract import ExitCode, Stage

REFUSAL = Refusal(403, "Forbidden", "exceeded quota")
FREE: list[tuple[ExitCode, dict[str, Any]]] = [
    (ExitCode.INTERRUPTED, {}),
    (ExitCode.KILLED, {"disrupted": True, "reason": "Evicted", "result": None}),
    (ExitCode.INTERNAL, {"disrupted": True, "reason": "DeletionByTaintManager", "result": None}),
    (ExitCode.KILLED, {"exit_code": 143, "result": None}),
]


def a_training(**policy: int) -> World:
    return World(a_job(runPolicy=policy)).reach(Stage.TRAIN)


def come_back(world: World) -> None:
    """The pods of the attempt that has ended go, those of the next one run."""
    world.settle()
    world.run_pods()
    world.reconcile()


def save(world: World, step: int) -> None:
    world.progress = a_report(world.now, checkpoints=(a_checkpoint(step),))
    world.reconcile()


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


def test_a_gang_whose_job_somebody_deletes_is_no_longer_shown_as_training() -> None:
    world = a_training()
    world.cluster.delete_job(world.jobs[Stage.TRAIN].uid)
    world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.QUEUED, "Restarting")
    assert "waiting for the Job support-bot-train to be deleted" in world.status.message


def test_training_whose_result_is_lost_has_its_budget_back_when_it_had_got_further() -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    come_back(world)
    assert world.status.restarts == 1
    save(world, 40)
    world.cluster.pods.clear()
    world.jobs[Stage.TRAIN].complete = True
    world.progress = None
    world.reconcile()
    assert (world.status.restarts, world.status.attempts[-1].checkpoint_step) == (0, 40)


def test_a_pod_whose_job_is_gone_is_named_while_it_is_waited_for() -> None:
    world = a_training()
    name = world.pod(Stage.TRAIN, 0).name
    world.cluster.delete_job(world.jobs[Stage.TRAIN].uid, foreground=False)
    world.reconcile()
    decided = world.reconcile()
    assert f"kubectl delete pod {name}" in world.status.message
    assert decided.requeue_after == 5
    world.cluster.lose_node("node-0-0")
    world.pass_time(1000)
    world.control()
    world.reconcile()
    assert (world.status.reason, world.phase) == ("PodStuckTerminating", Phase.QUEUED)


def test_the_history_of_attempts_is_bounded() -> None:
    world = a_training(maxRestarts=40)
    for _ in range(30):
        world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
        world.settle()
        world.pass_time(300)
        come_back(world)
    assert len(world.status.attempts) == 16
    assert (world.status.attempt, world.status.restarts) == (31, 30)


@pytest.mark.parametrize("dies_after", range(4))
def test_a_fault_is_charged_once_wherever_the_operator_dies(dies_after: int) -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    for _ in range(3):
        world.reconcile(dies_after=dies_after)
        world.control()
    come_back(world)
    assert (world.status.attempt, world.status.restarts) == (2, 1)


def test_an_attempt_that_no_status_has_heard_of_is_known_by_its_job_and_still_charged() -> None:
    """The operator dies after it has made the second attempt's Job, and comes back when that has failed."""
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    world.control()
    world.reconcile(dies_after=2)
    assert (world.status.attempt, world.cluster.launches) == (1, 2)
    world.control()
    world.run_pods()
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    assert (world.status.attempt, world.status.restarts) == (2, 2)


def test_a_pod_that_the_job_controller_replaces_before_its_job_is_deleted_begins_no_attempt() -> None:
    world = a_training()
    world.pass_time(5)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile(dies_after=1)
    world.pass_time(5)
    world.control()
    uid = world.jobs[Stage.TRAIN].uid
    assert world.reconcile().after_status == (DeleteJob("support-bot-train", uid),)
    assert [attempt.number for attempt in world.status.attempts] == [1]


def test_an_attempt_of_an_older_operator_that_wrote_no_topology_ends_like_any_other() -> None:
    world = a_training()
    (attempt,) = world.status.attempts
    old = world.status.model_copy(update={"attempts": (attempt.model_copy(update={"topology": None}),)})
    world.job = world.job.model_copy(update={"status": old})
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    assert (world.status.attempts[0].reason, world.status.attempts[0].gpu_seconds) == ("internal", None)


def test_a_reconcile_whose_status_is_out_of_date_takes_nothing_down() -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.set_policy(max_restarts=0)
    decided = world.reconcile(sees=("jobs", "pods"))
    assert decided.after_status
    assert world.removals == []
    world.reconcile()
    assert world.status.reason == "RestartsExhausted"


def test_the_gpu_seconds_are_those_in_which_all_pods_ran() -> None:
    world = a_training()
    world.pass_time(100)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    assert (world.status.attempts[0].gpu_seconds, world.status.gpu_seconds) == (200, 200)
    come_back(world)
    world.pass_time(50)
    world.finish(Stage.TRAIN)
    assert (world.status.attempts[1].gpu_seconds, world.status.gpu_seconds) == (100, 300)


def test_an_attempt_that_never_ran_whole_costs_no_gpu_seconds() -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.settle()
    world.pass_time(100)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERRUPTED)
    world.reconcile()
    assert world.status.attempts[1].gpu_seconds == 0


def test_training_on_cpu_tells_of_no_gpu_seconds() -> None:
    world = World(a_job(training={"device": "cpu"})).reach(Stage.TRAIN)
    world.pass_time(100)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    assert (world.status.attempts[0].gpu_seconds, world.status.gpu_seconds) == (None, None)


def test_gpu_seconds_are_not_lost_when_publish_cannot_start_at_once() -> None:
    world = a_training()
    world.pass_time(100)
    world.end_well(Stage.TRAIN)
    world.refusal = REFUSAL
    world.reconcile()
    world.refusal = None
    world.reconcile()
    assert (world.phase, world.status.gpu_seconds) == (Phase.PUBLISHING, 200)


def test_the_checkpoint_that_an_attempt_began_with_is_recorded_from_the_report_or_from_the_last_word() -> None:
    world = a_training()
    world.progress = a_report(resumed_from_step=7)
    world.reconcile()
    assert world.status.attempts[-1].resumed_from_step == 7
    world.progress = None
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL, result=None)
    world.reconcile()
    assert world.status.attempts[-1].resumed_from_step == 7


def test_the_checkpoint_of_a_sigterm_which_no_report_told_of_is_known_from_the_pods_last_word() -> None:
    world = a_training()
    save(world, 40)
    last = a_result(Stage.TRAIN, ExitCode.INTERRUPTED, checkpoints=(a_checkpoint(40), a_checkpoint(57)))
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERRUPTED, result=last)
    world.reconcile()
    assert [checkpoint.step for checkpoint in world.status.checkpoints] == [40, 57]
    assert "from the checkpoint of step 57" in world.status.message
    assert world.status.attempts[0].checkpoint_step == 57
