"""Ended jobs: they follow an edit, go on when what they ran out of is raised, and leave no pod running."""

from __future__ import annotations

import pytest
from tests.unit.plan.builders import a_job
from tests.unit.plan.cluster_model import Cluster
from tests.unit.plan.training import come_back
from tests.unit.plan.world import World

from finetune_operator.api.status import ConditionType, Phase
from finetune_operator.plan.model.names import LABEL_QUEUE
from finetune_operator.plan.model.plan import DeleteJob, EndJob, Fault
from finetune_operator.plan.planner import stalled
from finetune_trainer.contract import ExitCode, Stage

PHASES = {Stage.PREPARE: Phase.PREPARING, Stage.TRAIN: Phase.TRAINING, Stage.PUBLISH: Phase.PUBLISHING}


def an_exhausted_job(**labels: str) -> World:
    cluster = Cluster(kueue=bool(labels))
    world = World(a_job(labels=labels, runPolicy={"maxRestarts": 1}), cluster=cluster).reach(Stage.TRAIN)
    for _ in range(2):
        world.pass_time(5)
        world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
        come_back(world)
    assert world.status.reason == "RestartsExhausted"
    world.pass_time(5)
    world.settle()
    return world


@pytest.mark.parametrize("labels", [{}, {LABEL_QUEUE: "team"}], ids=["plain", "kueue"])
def test_raising_the_restarts_lets_a_job_go_on_that_had_used_them(labels: dict[str, str]) -> None:
    world = an_exhausted_job(**labels)
    world.set_policy(max_restarts=2)
    decided = world.reconcile()
    assert (world.phase, world.status.reason, decided.requeue_after) == (Phase.QUEUED, "Reopened", 1)
    assert world.status.message == "reopened: spec.runPolicy.maxRestarts is 2 now, 1 are used"
    assert world.events[-1] == "Reopened"
    assert not world.holds(ConditionType.FAILED)
    assert not world.holds(ConditionType.STALLED)
    assert world.holds(ConditionType.RECONCILING)
    assert world.status.completion_time is None
    assert world.status.observed_generation == world.job.metadata.generation
    come_back(world)
    assert (world.phase, world.status.attempt, world.status.restarts) == (Phase.TRAINING, 3, 1)


def test_restarts_that_were_not_raised_above_those_that_are_used_reopen_nothing() -> None:
    world = an_exhausted_job()
    world.set_policy(max_restarts=1)
    world.reconcile()
    assert world.phase is Phase.FAILED


def test_a_job_that_failed_by_the_users_fault_is_not_reopened_by_raising_anything() -> None:
    world = World().reach(Stage.TRAIN)
    world.end_pod(Stage.TRAIN, 0, ExitCode.DIVERGED)
    world.reconcile()
    world.set_policy(max_restarts=9, active_deadline_seconds=10_000)
    world.settle()
    assert (world.phase, world.status.reason) == (Phase.FAILED, "Diverged")


@pytest.mark.parametrize("stage", list(Stage))
@pytest.mark.parametrize("limit", [7200, None], ids=["raised", "removed"])
def test_raising_the_deadline_lets_a_job_go_on_in_the_stage_that_it_was_in(stage: Stage, limit: int | None) -> None:
    world = World(a_job(runPolicy={"activeDeadlineSeconds": 3600})).reach(stage)
    started = world.status.start_time
    world.pass_time(3600)
    world.settle()
    assert world.status.reason == "DeadlineExceeded"
    assert not any(pod.alive for pod in world.cluster.pods)
    uid = world.jobs[stage].uid
    world.set_policy(active_deadline_seconds=limit)
    assert world.reconcile().after_status == (DeleteJob(f"support-bot-{stage}", uid),)
    assert world.status.reason == "Reopened"
    expected = "without a deadline" if limit is None else "until 2026-03-01 14:00:00 UTC"
    assert expected in world.status.message
    come_back(world)
    assert (world.phase, world.status.start_time, world.status.restarts) == (PHASES[stage], started, 0)
    world.finish(stage)
    assert not world.phase.is_terminal or world.phase is Phase.SUCCEEDED


def test_a_deadline_that_is_raised_but_over_already_reopens_nothing() -> None:
    world = World(a_job(runPolicy={"activeDeadlineSeconds": 60})).reach(Stage.PREPARE)
    world.pass_time(3600)
    world.reconcile()
    world.set_policy(active_deadline_seconds=600)
    world.reconcile()
    assert world.phase is Phase.FAILED
    passed = round((world.now - world.started).total_seconds())
    over = "spec.runPolicy.activeDeadlineSeconds is over still: it has to be more than"
    assert world.told[-1] == f"{over} {passed} to go on"


def test_an_operator_that_died_before_it_deleted_the_ended_job_does_it_once_it_is_back() -> None:
    world = World(a_job(runPolicy={"activeDeadlineSeconds": 60, "maxRestarts": 0})).reach(Stage.TRAIN)
    world.pass_time(60)
    world.settle()
    world.set_policy(active_deadline_seconds=None)
    world.reconcile(dies_after=1)
    assert (world.status.reason, world.jobs[Stage.TRAIN].deleting) == ("Reopened", False)
    come_back(world)
    assert (world.phase, world.status.attempt, world.status.restarts) == (Phase.TRAINING, 2, 0)


def test_a_reopened_job_that_is_suspended_stays_down() -> None:
    world = an_exhausted_job()
    world.set_policy(max_restarts=5, suspend=True)
    world.settle()
    assert world.phase is Phase.SUSPENDED


@pytest.mark.parametrize("stage", list(Stage))
def test_a_failed_jobs_pods_are_ended_even_by_an_operator_that_died_right_after_it_said_so(stage: Stage) -> None:
    world = World(a_job(runPolicy={"activeDeadlineSeconds": 60})).reach(stage)
    world.pass_time(60)
    world.reconcile(dies_after=1)
    assert (world.phase, world.removals) == (Phase.FAILED, [])
    uid = world.jobs[stage].uid
    assert world.reconcile().after_status == (EndJob(f"support-bot-{stage}", uid),)
    world.settle()
    assert not any(pod.alive for pod in world.cluster.pods)
    assert world.plan().after_status == ()


@pytest.mark.parametrize("ended", [Phase.SUCCEEDED, Phase.FAILED])
def test_the_status_of_an_ended_job_follows_an_edit_and_changes_in_nothing_else(ended: Phase) -> None:
    world = World().reach(Stage.PUBLISH)
    if ended is Phase.SUCCEEDED:
        world.finish(Stage.PUBLISH)
    else:
        world.end_pod(Stage.PUBLISH, 0, ExitCode.INVALID_CONFIG)
        world.reconcile()
    before = world.status
    world.edit(gpus=4)
    decided = world.reconcile()
    generation = world.job.metadata.generation
    assert {condition.observed_generation for condition in world.status.conditions} == {generation}
    assert world.status.observed_generation == generation
    assert (decided.actions, decided.events, decided.requeue_after) == ((), (), None)
    same = {"observed_generation", "conditions"}
    assert world.status.model_dump(exclude=same) == before.model_dump(exclude=same)
    assert world.plan().status is world.status


def test_a_job_that_has_ended_needs_none_of_what_it_was_made_of() -> None:
    world = World().reach(Stage.PUBLISH)
    world.finish(Stage.PUBLISH)
    world.cluster.jobs.clear()
    world.template = world.resolved = None
    world.pass_time(1e6)
    again = world.plan()
    assert again.status is world.status
    assert (again.actions, again.after_status, again.events, again.requeue_after) == ((), (), (), None)


def test_a_fault_at_an_ended_job_leaves_the_reason_by_which_it_can_be_reopened() -> None:
    world = an_exhausted_job()
    shown = stalled(world.observed(), Fault(5, "the server is down"), world.now)
    assert shown.status is world.status
    assert shown.requeue_after == 30


def test_a_job_whose_resolved_spec_is_lost_is_not_reopened() -> None:
    world = an_exhausted_job()
    world.resolved = None
    world.set_policy(max_restarts=7)
    world.reconcile()
    assert (world.phase, world.status.reason) == (Phase.FAILED, "RestartsExhausted")
