"""What counts as progress: a new verified checkpoint, credited however the attempt ends, and never twice."""

from __future__ import annotations

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
