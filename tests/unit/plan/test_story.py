"""A job's life from acceptance to success, as its status and its events tell it."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.plan.builders import NOON, UID, a_checkpoint, a_job, a_report
from tests.unit.plan.cluster_model import Cluster
from tests.unit.plan.world import World

from finetune_operator.api.status import ConditionType, JobStatus, Phase
from finetune_operator.plan.model.names import LABEL_QUEUE
from finetune_operator.plan.model.observed import PodPhase
from finetune_operator.plan.model.plan import Create, DeleteJob
from finetune_trainer.contract import ExitCode, Stage


def test_a_job_runs_through_its_stages_to_success() -> None:
    world = World()
    world.reconcile()
    phases = [world.phase]
    world.finish(Stage.PREPARE)
    phases.append(world.phase)
    world.control()
    world.run_pods()
    world.reconcile()
    phases.append(world.phase)
    world.finish(Stage.TRAIN)
    phases.append(world.phase)
    world.finish(Stage.PUBLISH)
    phases.append(world.phase)
    assert phases == [Phase.PREPARING, Phase.QUEUED, Phase.TRAINING, Phase.PUBLISHING, Phase.SUCCEEDED]
    assert world.status.start_time == NOON
    assert world.status.completion_time == world.now
    assert world.status.artifacts[0].kind == "adapter"
    assert world.status.samples[0].after == "Hello!"
    assert world.events == [
        *("Accepted", "Prepared", "Queued", "Training", "Trained", "Publishing", "Published", "Succeeded")
    ]


def test_the_conditions_of_a_success_are_all_true_but_reconciling_and_stalled() -> None:
    world = World().reach(Stage.PUBLISH)
    world.finish(Stage.PUBLISH)
    true = [condition.type for condition in world.status.conditions if world.holds(condition.type)]
    assert true == [
        ConditionType.READY,
        ConditionType.PREPARED,
        ConditionType.TRAINED,
        ConditionType.PUBLISHED,
        ConditionType.COMPLETE,
    ]


def test_ready_is_true_and_reconciling_false_as_soon_as_pods_are_asked_for() -> None:
    world = World()
    world.reconcile()
    assert world.holds(ConditionType.READY)
    assert not world.holds(ConditionType.RECONCILING)
    assert not world.holds(ConditionType.STALLED)


def test_a_condition_keeps_its_time_until_it_changes() -> None:
    world = World().reach(Stage.TRAIN)
    world.pass_time(3600)
    world.finish(Stage.TRAIN)
    ready, trained = (world.status.condition(kind) for kind in (ConditionType.READY, ConditionType.TRAINED))
    assert ready is not None
    assert trained is not None
    assert (ready.reason, ready.last_transition_time) == ("Publishing", NOON)
    assert trained.last_transition_time == world.now


def test_an_unchanged_job_needs_nothing_in_every_stage() -> None:
    for stage in Stage:
        world = World().reach(stage)
        again = world.plan()
        assert again.status == world.status
        assert again.actions == ()
        assert again.events == ()


def test_a_job_that_is_being_deleted_is_left_alone() -> None:
    world = World()
    metadata = world.job.metadata.model_copy(update={"deletion_timestamp": "2026-03-01T12:00:00Z"})
    world.job = world.job.model_copy(update={"metadata": metadata})
    assert world.plan().actions == ()
    assert world.plan().status == JobStatus()


def test_what_a_start_applies_ends_with_the_resolved_spec_that_marks_it() -> None:
    decided = World().plan()
    kinds = [action.manifest["kind"] for action in decided.actions if isinstance(action, Create)]
    assert kinds == ["PersistentVolumeClaim", "Job", "ConfigMap"]


def test_a_template_that_changes_later_changes_nothing_in_a_job_that_runs() -> None:
    world = World().reach(Stage.PREPARE)
    before = world.resolved
    world.template = None
    world.finish(Stage.PREPARE)
    assert world.resolved == before
    assert Stage.TRAIN in world.jobs


def test_a_lost_snapshot_of_the_spec_is_made_again() -> None:
    world = World().reach(Stage.PREPARE)
    before, world.resolved = world.resolved, None
    world.reconcile()
    assert world.resolved == before


def test_progress_is_shown_for_people_to_read() -> None:
    world = World().reach(Stage.TRAIN)
    world.progress = a_report()
    world.reconcile()
    progress, metrics = world.status.progress, world.status.metrics
    assert progress is not None
    assert metrics is not None
    assert (progress.percent, progress.eta, progress.step) == ("45%", "3m10s", 45)
    assert (metrics.loss, metrics.learning_rate, metrics.tokens_per_second) == ("1.234", "2e-05", "12346")
    assert world.status.checkpoints == (a_checkpoint(40),)


def test_a_trainer_that_falls_silent_is_shown_as_stale_and_looked_at_by_itself() -> None:
    world = World().reach(Stage.TRAIN)
    world.progress = a_report(world.now)
    decided = world.reconcile()
    assert decided.requeue_after == 61
    world.pass_time(61)
    world.reconcile()
    assert world.status.progress is not None
    assert world.status.progress.stale


def test_what_waits_for_its_pods_is_not_looked_at_although_the_last_report_is_old() -> None:
    world = World().reach(Stage.TRAIN)
    world.progress = a_report(world.now)
    world.reconcile()
    world.pass_time(3600)
    world.finish(Stage.TRAIN)
    world.control()
    assert world.reconcile().requeue_after is None


def test_a_sign_of_life_alone_changes_no_status() -> None:
    world = World().reach(Stage.TRAIN)
    world.progress = a_report()
    world.reconcile()
    world.pass_time(15)
    world.progress = a_report(world.now)
    assert world.plan().status == world.status


def test_what_keeps_a_pod_from_starting_is_told_once_in_its_own_words() -> None:
    world = World()
    world.reconcile()
    world.control()
    world.change_pods(Stage.PREPARE, problem='ErrImagePull: pull access denied for "no/such"')
    world.reconcile()
    assert world.status.reason == "PodProblem"
    assert "pull access denied" in world.status.message
    assert world.reconcile().events == ()
    assert world.events.count("PodProblem") == 1


def test_results_outlive_the_pods_that_left_them() -> None:
    world = World().reach(Stage.TRAIN)
    world.finish(Stage.TRAIN)
    world.cluster.jobs = [world.jobs[Stage.PUBLISH]]
    world.finish(Stage.PUBLISH)
    assert world.phase is Phase.SUCCEEDED


def test_a_stage_whose_result_nobody_has_runs_again() -> None:
    world = World().reach(Stage.PREPARE)
    world.cluster.pods.clear()
    world.jobs[Stage.PREPARE].complete = True
    uid = world.jobs[Stage.PREPARE].uid
    assert world.reconcile().after_status == (DeleteJob("support-bot-prepare", uid),)
    assert "its pod was removed before its result was read" in world.status.message
    world.settle()
    assert not world.jobs[Stage.PREPARE].complete
    world.finish(Stage.PREPARE)
    assert world.phase is Phase.QUEUED


def test_training_whose_result_nobody_has_is_a_new_attempt_that_nobody_is_charged_for() -> None:
    world = World().reach(Stage.TRAIN)
    world.cluster.pods.clear()
    world.jobs[Stage.TRAIN].complete = True
    world.settle()
    assert (world.status.attempt, world.status.restarts) == (2, 0)
    assert world.status.attempts[0].reason == "interrupted"


def test_the_last_word_of_a_pod_that_the_watch_has_not_told_of_yet_is_waited_for() -> None:
    world = World().reach(Stage.PREPARE)
    world.jobs[Stage.PREPARE].complete = True
    decided = world.reconcile()
    assert (decided.requeue_after, decided.after_status) == (1, ())
    assert "its pod's last word is on its way" in world.status.message


@pytest.mark.parametrize("stage", list(Stage))
def test_a_result_counts_before_the_job_controller_says_complete(stage: Stage) -> None:
    world = World().reach(stage)
    world.end_well(stage)
    assert not world.jobs[stage].complete
    world.reconcile()
    assert (world.status.dataset is not None, world.status.trained is not None) == (True, stage is not Stage.PREPARE)
    following = {Stage.PREPARE: Phase.QUEUED, Stage.TRAIN: Phase.PUBLISHING, Stage.PUBLISH: Phase.SUCCEEDED}
    assert world.phase is following[stage]


def test_training_has_no_result_before_every_rank_has_ended_well() -> None:
    world = World().reach(Stage.TRAIN)
    world.end_pod(Stage.TRAIN, 0, ExitCode.OK)
    world.reconcile()
    assert (world.phase, world.status.trained) == (Phase.TRAINING, None)


def test_a_pod_that_ends_well_without_a_result_fails_the_job_instead_of_running_for_ever() -> None:
    world = World().reach(Stage.PREPARE)
    world.change_pods(Stage.PREPARE, phase=PodPhase.SUCCEEDED, exit_code=0, last_words="hello")
    world.control()
    world.reconcile()
    assert world.phase is Phase.FAILED
    assert "`hello`" in world.status.message


def test_without_a_lasting_workspace_the_job_warns_that_it_cannot_resume() -> None:
    world = World(a_job(output={"uri": "s3://team/models/support-bot"}))
    world.reconcile()
    assert world.events == ["Accepted", "CannotResume"]


def test_what_a_stage_was_doing_is_told_only_while_it_is_at_it() -> None:
    world = World().reach(Stage.TRAIN)
    world.progress = a_report(message="saving", step=100)
    world.reconcile()
    assert world.status.progress is not None
    assert world.status.progress.message == "saving"
    world.progress = None
    world.finish(Stage.TRAIN)
    assert world.phase is Phase.PUBLISHING
    assert (world.status.progress.message, world.status.progress.percent) == ("", "100%")


def test_a_suspended_job_has_no_time_left_to_tell() -> None:
    world = World().reach(Stage.TRAIN)
    world.progress = a_report()
    world.reconcile()
    world.progress = None
    world.set_policy(suspend=True)
    world.settle()
    assert world.status.progress is not None
    assert (world.status.progress.percent, world.status.progress.eta, world.status.progress.message) == (
        "45%",
        None,
        "",
    )


@pytest.mark.parametrize(
    ("spec", "kept"),
    [
        ({}, f"pvc://support-bot-workspace-{UID[:8]}/support-bot-{UID[:8]}/checkpoints/checkpoint-40"),
        (
            {"workspace": {"size": "9Gi"}, "output": {"uri": "s3://team/out"}},
            "pvc://support-bot-workspace/checkpoints/checkpoint-40",
        ),
        ({"output": {"uri": "s3://team/out"}}, "file:///workspace/checkpoints/checkpoint-40"),
    ],
    ids=["claim that outlives the job", "claim that goes with it", "no claim"],
)
def test_a_checkpoint_is_told_by_where_it_is_outside_the_pod(spec: dict[str, Any], kept: str) -> None:
    world = World(a_job(**spec)).reach(Stage.TRAIN)
    inside = a_checkpoint(40).model_copy(update={"uri": "file:///workspace/checkpoints/checkpoint-40"})
    world.progress = a_report(checkpoints=(inside,))
    world.reconcile()
    assert [checkpoint.uri for checkpoint in world.status.checkpoints] == [kept]
    assert world.plan().status == world.status


def a_stale_training(world: World) -> World:
    """One whose trainer told of the time left, and has been silent since."""
    world.reach(Stage.TRAIN)
    world.progress = a_report(world.now, message="training")
    world.reconcile()
    world.pass_time(3600)
    return world


def shown(world: World) -> tuple[str, str | None, bool]:
    progress = world.status.progress
    assert progress is not None
    return progress.message, progress.eta, progress.stale


@pytest.mark.parametrize("kueue", [False, True])
def test_a_new_attempt_has_no_time_left_and_is_not_stale_before_its_first_report(kueue: bool) -> None:  # noqa: FBT001 - drawn
    labels = {LABEL_QUEUE: "team"} if kueue else {}
    world = a_stale_training(World(a_job(labels=labels), cluster=Cluster(kueue=kueue)))
    world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
    world.reconcile()
    assert shown(world) == ("", None, False), "nobody is at it"
    world.settle()
    world.run_pods()
    world.reconcile()
    assert (world.phase, world.status.attempt) == (Phase.TRAINING, 2)
    assert shown(world) == ("", None, False)
    assert world.status.progress is not None
    assert world.status.progress.percent == "45%"
    world.progress = a_report(world.now, message="again")
    world.reconcile()
    assert shown(world) == ("again", "3m10s", False)
    world.pass_time(3600)
    world.reconcile()
    assert shown(world) == ("again", "3m10s", True)


def test_the_publish_stage_is_not_stale_because_training_fell_silent() -> None:
    world = a_stale_training(World())
    world.reconcile()
    assert shown(world) == ("training", "3m10s", True)
    world.progress = None
    world.finish(Stage.TRAIN)
    world.control()
    world.run_pods()
    world.reconcile()
    assert world.phase is Phase.PUBLISHING
    assert shown(world) == ("", None, False)


def test_a_report_of_a_pod_that_goes_is_not_shown_as_the_next_attempts() -> None:
    world = World(a_job(labels={LABEL_QUEUE: "team"}), cluster=Cluster(kueue=True)).reach(Stage.TRAIN)
    world.cluster.dead_nodes.add("node-0-0")
    world.progress = a_report(world.now, message="still here")
    world.pass_time(5)
    world.end_pod(Stage.TRAIN, 1, ExitCode.INTERNAL)
    world.settle()
    assert world.status.attempt == 2
    assert shown(world) == ("", None, False)
    assert world.status.checkpoints == (a_checkpoint(40),)
