"""runPolicy.suspend gives the GPUs back and takes them again."""

from __future__ import annotations

import pytest
from tests.unit.plan.builders import a_job
from tests.unit.plan.world import World

from finetune_operator.api.status import ConditionType, Phase
from finetune_operator.plan.model.plan import SetSuspend
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
def test_suspending_takes_the_running_stage_down_and_resuming_goes_on_with_it(stage: Stage) -> None:
    world = World().reach(stage)
    phase = world.phase
    world.set_policy(suspend=True)
    assert world.reconcile().actions == (SetSuspend(f"support-bot-{stage}", suspend=True),)
    assert (world.phase, world.status.reason) == (phase, "Suspending")
    world.settle()
    assert world.phase is Phase.SUSPENDED
    assert world.holds(ConditionType.SUSPENDED)
    world.set_policy(suspend=False)
    world.settle()
    world.run_pods(stage)
    world.reconcile()
    assert world.phase is phase
    assert not world.holds(ConditionType.SUSPENDED)
    assert world.events.count("Resumed") == 1


def test_training_resumes_as_another_attempt_that_is_not_counted() -> None:
    world = World(a_job(runPolicy={"maxRestarts": 0})).reach(Stage.TRAIN)
    world.set_policy(suspend=True)
    world.reconcile()
    for index in (0, 1):
        world.end_pod(Stage.TRAIN, index, ExitCode.INTERRUPTED)
    world.settle()
    world.set_policy(suspend=False)
    world.settle()
    assert [attempt.reason for attempt in world.status.attempts] == ["suspended", None]
    assert world.status.restarts == 0


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


def test_a_failure_that_would_come_again_is_not_hidden_by_a_suspension() -> None:
    world = World().reach(Stage.TRAIN)
    world.set_policy(suspend=True)
    world.reconcile()
    world.end_pod(Stage.TRAIN, 0, ExitCode.DIVERGED)
    world.reconcile()
    assert world.phase is Phase.FAILED


def test_a_suspended_job_needs_nothing() -> None:
    world = World().reach(Stage.TRAIN)
    world.set_policy(suspend=True)
    world.settle()
    again = world.plan()
    assert (again.status, again.actions, again.events) == (world.status, (), ())
