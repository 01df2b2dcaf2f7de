"""What counts as progress: a new verified checkpoint, credited however the attempt ends, and never twice."""

from __future__ import annotations

from datetime import timedelta

import pytest
from tests.unit.plan.builders import a_job
from tests.unit.plan.training import a_training, save
from tests.unit.plan.world import World

from finetune_operator.api.status import Phase
from finetune_trainer.contract import ExitCode, Stage


def come_back(world: World) -> None:
    world.settle()
    world.pass_time(400)
    world.settle()
    world.run_pods()
    world.reconcile()


def fault(world: World) -> None:
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()


def test_a_checkpoint_before_a_suspension_resets_the_restarts_all_the_same() -> None:
    world = a_training(max_restarts=1)
    fault(world)
    come_back(world)
    assert world.status.restarts == 1
    save(world, 50)
    world.set_policy(suspend=True)
    world.settle()
    assert (world.phase, world.status.restarts) == (Phase.SUSPENDED, 0)
    world.set_policy(suspend=False)
    come_back(world)
    fault(world)
    assert (world.phase, world.status.restarts) == (Phase.QUEUED, 1)


def test_a_checkpoint_that_there_was_before_is_no_progress_when_training_had_to_begin_again() -> None:
    world = a_training(max_restarts=2)
    for step in (90, 10, 20):
        save(world, step)
        fault(world)
        come_back(world)
    assert world.status.restarts == 2
    save(world, 30)
    fault(world)
    assert (world.phase, world.status.reason) == (Phase.FAILED, "RestartsExhausted")


def test_gpu_seconds_end_when_the_pods_did_and_not_when_the_operator_looked() -> None:
    world = World(a_job(gpus=2, gpusPerNode=1)).reach(Stage.TRAIN)
    world.pass_time(100)
    for index in range(2):
        world.end_pod(Stage.TRAIN, index, ExitCode.PEER_LOST)
    world.pass_time(3600)
    world.reconcile()
    assert world.status.gpu_seconds is not None
    assert 200 <= world.status.gpu_seconds < 210


def test_a_node_whose_clock_is_ahead_spends_no_gpu_seconds_of_the_future() -> None:
    world = World(a_job(gpus=2, gpusPerNode=1)).reach(Stage.TRAIN)
    world.pass_time(100)
    for index in range(2):
        world.end_pod(Stage.TRAIN, index, ExitCode.PEER_LOST, finished=world.now + timedelta(days=365))
    world.reconcile()
    assert world.status.gpu_seconds is not None
    assert world.status.gpu_seconds < 210


def an_unseen_training(nodes: int = 2) -> World:
    """One whose pods the operator has asked for, and not seen since."""
    world = World(a_job(gpus=nodes, gpusPerNode=1))
    world.reconcile()
    world.finish(Stage.PREPARE)
    world.control()
    return world


def test_gpu_seconds_begin_when_all_pods_ran_and_not_when_the_operator_looked() -> None:
    world = an_unseen_training()
    world.run_pods()
    began = world.now
    world.pass_time(3600)
    world.reconcile()
    assert world.status.attempts[-1].running_since == began


def test_an_attempt_that_nobody_saw_costs_what_it_took() -> None:
    world = an_unseen_training()
    world.run_pods()
    world.pass_time(100)
    for index in range(2):
        world.end_pod(Stage.TRAIN, index, ExitCode.INTERNAL)
    world.pass_time(3600)
    world.reconcile()
    (attempt,) = world.status.attempts
    assert (attempt.gpu_seconds, attempt.counted, world.status.gpu_seconds) == (200, True, 200)


@pytest.mark.parametrize("told", [True, False])
def test_a_training_that_nobody_saw_end_well_costs_what_it_took(told: bool) -> None:  # noqa: FBT001 - drawn
    """Not even of its beginning does the status tell, when the operator died after it had made the Job."""
    world = World(a_job(gpus=2, gpusPerNode=1))
    world.reconcile()
    world.control()
    world.end_well(Stage.PREPARE)
    world.reconcile(dies_after=None if told else 2)
    assert Stage.TRAIN in world.jobs
    assert bool(world.status.attempts) is told
    world.control()
    world.run_pods()
    world.pass_time(100)
    world.end_well(Stage.TRAIN)
    world.pass_time(3600)
    world.reconcile()
    (attempt,) = world.status.attempts
    assert (attempt.reason, attempt.gpu_seconds, world.status.gpu_seconds) == ("ok", 200, 200)
    assert world.status.attempt == 1


def test_ranks_that_never_ran_at_the_same_time_cost_nothing() -> None:
    world = an_unseen_training()
    pending = world.pod(Stage.TRAIN, 1).name
    world.cluster.change_pods(lambda pod: pod.state.name == pending, problem="Unschedulable: 0/3 nodes are available")
    world.run_pods()
    world.pass_time(10)
    world.end_pod(Stage.TRAIN, 0, ExitCode.PEER_LOST)
    world.pass_time(10)
    world.cluster.change_pods(lambda pod: pod.state.name == pending, problem=None)
    world.run_pods()
    world.reconcile()
    assert (world.status.attempts[-1].running_since, world.status.gpu_seconds) == (None, 0)


def test_a_nodes_clock_that_is_off_makes_no_gpu_second() -> None:
    for off in (-86400, 86400):
        world = an_unseen_training()
        world.run_pods()
        world.change_pods(Stage.TRAIN, started=world.now + timedelta(seconds=off))
        world.pass_time(30)
        world.reconcile()
        since = world.status.attempts[-1].running_since
        assert since is not None
        assert world.pod(Stage.TRAIN, 0).created <= since <= world.now
