"""A job in training, and what befalls it."""

from __future__ import annotations

from tests.unit.plan.builders import a_checkpoint, a_job, a_report
from tests.unit.plan.world import World

from finetune_trainer.contract import Stage


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
