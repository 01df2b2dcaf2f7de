"""What a restart records and says: charges, checkpoints, words."""

from __future__ import annotations

import pytest
from tests.unit.plan.builders import a_checkpoint, a_job, a_report, a_result
from tests.unit.plan.training import a_training, come_back, save
from tests.unit.plan.world import World

from finetune_operator.api.status import Phase
from finetune_operator.plan.model.plan import DeleteJob, Refusal
from finetune_trainer.contract import ExitCode, Stage

REFUSAL = Refusal(403, "Forbidden", "exceeded quota")


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


def test_a_stage_that_was_begun_with_a_result_that_is_lost_goes_before_that_result_is_made_again() -> None:
    """Somebody deletes prepare's Job, and the operator dies after it has started training, before it has said so."""
    world = World()
    world.reconcile()
    world.control()
    world.run_pods()
    world.cluster.delete_job(world.jobs[Stage.PREPARE].uid)
    world.end_well(Stage.PREPARE)
    world.reconcile(dies_after=2)
    assert (world.status.dataset, Stage.TRAIN in world.jobs) == (None, True)
    uid = world.jobs[Stage.TRAIN].uid
    world.control()
    world.run_pods()
    assert Stage.PREPARE not in world.jobs
    decided = world.reconcile()
    assert (decided.actions, decided.after_status) == ((), (DeleteJob("support-bot-train", uid),))
    assert "the result of the stage prepare, which is lost" in world.status.message
    world.reconcile()
    assert list(world.jobs) == [Stage.TRAIN], "it has not gone yet"
    world.settle()
    assert list(world.jobs) == [Stage.PREPARE]
    world.finish(Stage.PREPARE)
    come_back(world)
    assert (world.phase, world.status.attempt) == (Phase.TRAINING, 1)
