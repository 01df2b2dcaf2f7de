"""What pods leave behind when they end: results, checkpoints, and words where a result should be."""

from __future__ import annotations

import pytest
from tests.unit.plan.builders import a_checkpoint, a_report, a_result, trained
from tests.unit.plan.training import a_training
from tests.unit.plan.world import World

from finetune_operator.api.status import ConditionType, Phase
from finetune_trainer.contract import ExitCode, Stage


@pytest.mark.parametrize(
    ("words", "said"), [("usage: python [option]", "said `usage: python [option]`"), ("", "said nothing")]
)
@pytest.mark.parametrize("stage", list(Stage))
def test_a_stage_that_ends_well_and_says_something_else_than_its_result_fails_the_job(
    stage: Stage, words: str, said: str
) -> None:
    world = World().reach(stage)
    for index in range(world.jobs[stage].size):
        world.end_pod(stage, index, ExitCode.OK, result=None, last_words=words)
    world.control()
    world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.FAILED, "Internal")
    assert world.status.message == (
        f"the pod of the stage {stage} ended well, but instead of its result it {said}. Check that its image is a "
        "finetune trainer of the operator's version"
    )
    assert world.holds(ConditionType.STALLED)
    ends = [(attempt.reason, attempt.exit_code, attempt.message) for attempt in world.status.attempts]
    assert ends == {Stage.PREPARE: [], Stage.TRAIN: [("internal", 0, world.status.message)]}.get(
        stage, [("ok", 0, None)]
    )


@pytest.mark.parametrize("steps", [(40, 57), (57, 40)])
def test_of_several_pods_the_one_with_the_newest_checkpoint_is_believed(steps: tuple[int, int]) -> None:
    world = a_training()
    for index, step in enumerate(steps):
        left = a_result(Stage.TRAIN, ExitCode.INTERRUPTED, checkpoints=(a_checkpoint(step),))
        world.end_pod(Stage.TRAIN, index, ExitCode.INTERRUPTED, result=left)
    world.reconcile()
    assert [checkpoint.step for checkpoint in world.status.checkpoints] == [57]


@pytest.mark.parametrize("first", [0, 1])
def test_of_ranks_that_failed_in_the_same_way_the_first_to_end_is_told(first: int) -> None:
    world = a_training()
    world.end_pod(Stage.TRAIN, first, ExitCode.INTERNAL, "the first")
    world.pass_time(1)
    world.end_pod(Stage.TRAIN, 1 - first, ExitCode.INTERNAL, "the second")
    world.reconcile()
    assert "the first" in world.status.message


def test_training_that_measured_no_loss_tells_of_none() -> None:
    world = a_training()
    for index in (0, 1):
        ended = a_result(Stage.TRAIN, trained=trained(loss=None))
        world.end_pod(Stage.TRAIN, index, ExitCode.OK, result=ended)
    world.reconcile()
    condition = world.status.condition(ConditionType.TRAINED)
    assert condition is not None
    assert condition.message == "100 steps"


def test_a_report_says_how_large_the_model_is() -> None:
    world = a_training()
    world.progress = a_report(world.now, total_parameters=140_000_000, trainable_parameters=5_000_000)
    world.reconcile()
    assert (world.status.total_parameters, world.status.trainable_parameters) == (140_000_000, 5_000_000)


def test_a_result_ends_what_its_last_report_had_left_open() -> None:
    world = a_training()
    world.progress = a_report(world.now)
    world.reconcile()
    world.pass_time(1000)
    world.reconcile()
    assert world.status.progress is not None
    assert world.status.progress.stale
    for index in (0, 1):
        ended = a_result(Stage.TRAIN, trained=trained(resumed_from_step=40))
        world.end_pod(Stage.TRAIN, index, ExitCode.OK, result=ended)
    world.reconcile()
    progress = world.status.progress
    assert (progress.step, progress.eta, progress.stale) == (100, None, False)
    assert world.status.attempts[-1].resumed_from_step == 40
