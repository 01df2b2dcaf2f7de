"""runPolicy.suspend gives the GPUs back and takes them again."""

from __future__ import annotations

import pytest
from tests.unit.plan.builders import a_checkpoint, a_job, a_report
from tests.unit.plan.training import come_back
from tests.unit.plan.world import World

from finetune_operator.api.status import ConditionType, Phase
from finetune_operator.plan.model.plan import DeleteJob
from finetune_trainer.contract import ExitCode, Stage


def test_a_job_that_is_made_suspended_starts_nothing_until_it_is_resumed() -> None:
    world = World(a_job(runPolicy={"suspend": True, "activeDeadlineSeconds": 60}))
    world.settle()
    assert world.phase is Phase.SUSPENDED
    assert world.holds(ConditionType.READY), "nothing is wrong with it"
    assert (world.jobs, world.resolved, world.status.start_time) == ({}, None, None)
    world.pass_time(3600)
    world.set_policy(suspend=False)
    world.reconcile()
    assert (world.phase, world.status.start_time) == (Phase.PREPARING, world.now)
    assert world.events == ["Suspended", "Accepted", "Resumed"]


@pytest.mark.parametrize("stage", list(Stage))
def test_suspending_deletes_the_running_stages_job_and_resuming_goes_on_with_the_stage(stage: Stage) -> None:
    world = World().reach(stage)
    phase, uid = world.phase, world.jobs[stage].uid
    world.set_policy(suspend=True)
    assert world.reconcile().after_status == (DeleteJob(f"support-bot-{stage}", uid),)
    assert (world.phase, world.status.reason) == (phase, "Suspending")
    assert world.reconcile().after_status == (), "it is going"
    assert (world.phase, world.status.reason) == (phase, "Suspending")
    world.settle()
    assert (world.phase, world.jobs.get(stage)) == (Phase.SUSPENDED, None)
    assert world.holds(ConditionType.SUSPENDED)
    world.set_policy(suspend=False)
    come_back(world)
    assert world.phase is phase
    assert not world.holds(ConditionType.SUSPENDED)
    assert world.events.count("Resumed") == 1


def test_training_resumes_as_another_attempt_that_is_neither_counted_nor_waited_for() -> None:
    world = World(a_job(runPolicy={"maxRestarts": 0})).reach(Stage.TRAIN)
    world.progress = a_report(checkpoints=(a_checkpoint(40),))
    world.reconcile()
    world.pass_time(100)
    for _ in range(4):
        world.set_policy(suspend=True)
        world.settle()
        world.set_policy(suspend=False)
        world.reconcile()
        assert world.status.reason == "Queued"
        assert "the checkpoint of step 40" in world.status.message
        world.control()
        world.run_pods()
        world.reconcile()
    assert [attempt.reason for attempt in world.status.attempts] == [*["suspended"] * 4, None]
    assert (world.status.restarts, world.status.attempts[0].checkpoint_step) == (0, 40)
    assert (world.status.attempts[0].gpu_seconds or 0) >= 200


def test_a_suspension_between_two_faults_forgives_neither() -> None:
    world = World(a_job(runPolicy={"maxRestarts": 1})).reach(Stage.TRAIN)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.settle()
    world.set_policy(suspend=True)
    world.settle()
    world.set_policy(suspend=False)
    come_back(world)
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    assert world.status.reason == "RestartsExhausted"


def test_a_job_that_is_suspended_between_two_stages_does_not_begin_the_next() -> None:
    world = World().reach(Stage.PREPARE)
    world.set_policy(suspend=True)
    world.finish(Stage.PREPARE)
    assert world.phase is Phase.SUSPENDED
    assert Stage.TRAIN not in world.jobs
    assert world.status.dataset is not None


def test_a_suspension_that_is_taken_back_while_pods_still_go_is_a_free_restart() -> None:
    world = World(a_job(runPolicy={"maxRestarts": 0})).reach(Stage.TRAIN)
    world.set_policy(suspend=True)
    world.reconcile()
    world.set_policy(suspend=False)
    world.settle()
    assert (world.phase, world.status.attempt, world.status.restarts) == (Phase.QUEUED, 2, 0)


@pytest.mark.parametrize("taken_back", [False, True])
def test_a_failure_that_would_come_again_is_not_hidden_by_a_suspension(taken_back: bool) -> None:  # noqa: FBT001 - drawn
    world = World().reach(Stage.TRAIN)
    world.set_policy(suspend=True)
    world.reconcile()
    world.end_pod(Stage.TRAIN, 0, ExitCode.DIVERGED)
    world.set_policy(suspend=not taken_back)
    world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.FAILED, "Diverged")


def test_a_suspended_job_needs_nothing() -> None:
    world = World().reach(Stage.TRAIN)
    world.set_policy(suspend=True)
    world.settle()
    again = world.plan()
    assert (again.status, again.actions, again.after_status, again.events) == (world.status, (), (), ())


def test_an_operator_that_died_before_it_deleted_the_job_deletes_it_then() -> None:
    world = World().reach(Stage.TRAIN)
    world.set_policy(suspend=True)
    world.reconcile(dies_after=1)
    assert (world.status.reason, world.removals) == ("Suspending", [])
    world.reconcile()
    assert world.jobs[Stage.TRAIN].deleting
    assert world.status.attempts[-1].reason == "suspended"


def test_a_pod_that_does_not_go_at_a_suspension_is_named() -> None:
    world = World().reach(Stage.TRAIN)
    world.cluster.dead_nodes.add("node-0-0")
    world.set_policy(suspend=True)
    world.settle()
    world.pass_time(200)
    world.reconcile()
    assert world.status.reason == "PodStuckTerminating"
    assert "node-0-0" in world.status.message


def test_a_job_that_somebody_suspended_and_resumed_goes_on_in_the_same_job_even_before_its_pods_are_seen() -> None:
    world = World().reach(Stage.TRAIN)
    uid = world.jobs[Stage.TRAIN].uid
    world.jobs[Stage.TRAIN].suspended = True
    world.settle()
    assert world.status.attempts[-1].reason == "preempted"
    world.jobs[Stage.TRAIN].suspended = False
    decided = world.reconcile()
    assert decided.after_status == ()
    come_back(world)
    assert world.jobs[Stage.TRAIN].uid == uid
    assert [attempt.number for attempt in world.status.attempts] == [1, 2]
    assert world.status.restarts == 0
