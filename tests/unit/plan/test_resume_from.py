"""checkpoints.resumeFrom: a job that begins at another one's checkpoints."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.plan.builders import SETTINGS, a_checkpoint, a_job, a_report, a_template
from tests.unit.plan.world import World

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import ConditionType, JobStatus, Phase
from finetune_operator.plan.model.names import ANNOTATION_RUN_CONFIG
from finetune_operator.plan.model.observed import Presence
from finetune_operator.plan.resolve.resolver import resolve
from finetune_trainer.contract import CheckpointRef, ExitCode, ResumeSource, RunConfig, Stage

FOLDER = "s3://team/ckpt/yesterday-1234"


def a_source(
    phase: Phase = Phase.FAILED, *checkpoints: CheckpointRef, folder: str = FOLDER, **spec: Any
) -> FineTuneJob:
    """Yesterday's job, with two checkpoints."""
    found = checkpoints or tuple(
        a_checkpoint(step).model_copy(update={"uri": f"{folder}/checkpoint-{step}"}) for step in (40, 80)
    )
    status = JobStatus(phase=phase, checkpoints=found)
    return a_job(name="yesterday", **spec).model_copy(update={"status": status})


def a_world(source: FineTuneJob | None, **resumed: Any) -> World:
    world = World(a_job(checkpoints={"resumeFrom": {"job": "yesterday"} | resumed}))
    world.resume_from = source
    return world


def assert_waits(world: World, *words: str) -> None:
    decided = world.reconcile()
    assert (world.phase, world.status.reason, decided.requeue_after) == (Phase.PENDING, "ResumeNotFound", 30)
    assert world.holds(ConditionType.STALLED)
    assert not world.cluster.jobs
    for word in ("spec.checkpoints.resumeFrom.job", "yesterday", *words):
        assert word in world.status.message


def test_a_job_that_is_not_there_is_named_and_waited_for() -> None:
    world = a_world(None)
    assert_waits(world, "there is no FineTuneJob", "kubectl get ftj -n team", "resumeFrom.uri")
    world.resume_from = a_source()
    world.reconcile()
    assert world.phase is Phase.PREPARING


@pytest.mark.parametrize("phase", [phase for phase in Phase if not phase.is_terminal and phase is not Phase.SUSPENDED])
def test_a_job_that_still_runs_is_waited_for_since_it_removes_its_older_checkpoints(phase: Phase) -> None:
    world = a_world(a_source(phase))
    assert_waits(world, "still runs")
    assert world.status.message.endswith("This job starts by itself once that one has ended or is suspended")


@pytest.mark.parametrize("phase", [Phase.SUCCEEDED, Phase.FAILED, Phase.SUSPENDED])
def test_the_folder_of_a_job_that_has_ended_is_where_training_begins(phase: Phase) -> None:
    world = a_world(a_source(phase)).reach(Stage.TRAIN)
    template = world.jobs[Stage.TRAIN].manifest["spec"]["template"]
    config = RunConfig.model_validate_json(template["metadata"]["annotations"][ANNOTATION_RUN_CONFIG])
    assert config.checkpoints.resume_from == ResumeSource(uri=FOLDER)


@pytest.mark.parametrize(
    "checkpoint",
    [
        a_checkpoint(40).model_copy(update={"verified": False, "uri": f"{FOLDER}/checkpoint-40"}),
        a_checkpoint(40).model_copy(update={"uri": "file:///workspace/checkpoints/checkpoint-40"}),
    ],
    ids=["torn", "gone with its pod"],
)
def test_a_job_without_a_checkpoint_that_lasts_is_told_so(checkpoint: CheckpointRef) -> None:
    assert_waits(a_world(a_source(Phase.FAILED, checkpoint)), "no verified checkpoint in a claim or a bucket")


def test_a_job_cannot_begin_where_it_is_itself() -> None:
    world = World(a_job(name="yesterday", checkpoints={"resumeFrom": {"job": "yesterday"}}))
    world.reconcile()
    assert (world.status.reason, world.jobs) == ("InvalidSpec", {})
    assert "names the job itself" in world.status.message


def test_the_claim_that_holds_the_checkpoints_is_mounted_and_only_read() -> None:
    world = a_world(a_source(folder="pvc://old-workspace/yesterday-1234/checkpoints")).reach(Stage.TRAIN)
    pod = world.jobs[Stage.TRAIN].manifest["spec"]["template"]["spec"]
    volume = {"name": "claim-old-workspace", "persistentVolumeClaim": {"claimName": "old-workspace"}}
    mount = {"name": "claim-old-workspace", "mountPath": "/volumes/old-workspace", "readOnly": True}
    assert volume in pod["volumes"]
    assert mount in pod["containers"][0]["volumeMounts"]


@pytest.mark.parametrize(
    ("own", "secret"), [({}, "theirs"), ({"secretRef": {"name": "mine"}}, "mine")], ids=["borrowed", "its own"]
)
def test_the_secret_is_the_one_that_is_named_else_the_one_the_other_job_wrote_with(
    own: dict[str, Any], secret: str
) -> None:
    source = a_source(checkpoints={"uri": "s3://team/ckpt", "secretRef": {"name": "theirs"}})
    world = a_world(source, **own)
    world.secrets = {"mine": Presence.PRESENT}
    world.reach(Stage.TRAIN)
    assert world.resolved is not None
    assert world.resolved.checkpoints.resume_from == ResumeSource(uri=FOLDER, secret=secret)
    assert secret in world.resolved.secrets


def test_a_uri_is_taken_as_it_stands() -> None:
    resumed = {"uri": "s3://archive/run-7", "secretRef": {"name": "old"}}
    spec = resolve(a_job(checkpoints={"resumeFrom": resumed}), a_template(), SETTINGS)
    assert spec.checkpoints.resume_from == ResumeSource.model_validate({"uri": "s3://archive/run-7", "secret": "old"})


def test_a_source_that_is_deleted_later_changes_nothing() -> None:
    world = a_world(a_source()).reach(Stage.PREPARE)
    world.resume_from = None
    world.finish(Stage.PREPARE)
    assert world.phase is Phase.QUEUED


def test_a_job_that_resumes_and_whose_policy_is_edited_has_not_changed() -> None:
    world = a_world(a_source()).reach(Stage.PREPARE)
    world.set_policy(max_restarts=7)
    world.reconcile()
    assert "SpecChangeIgnored" not in world.events


def test_beginning_at_another_jobs_checkpoint_is_not_progress_again_and_again() -> None:
    world = a_world(a_source())
    world.set_policy(max_restarts=1)
    world.reach(Stage.TRAIN)
    for _ in range(2):
        world.progress = a_report(world.now, checkpoints=(), resumed_from_step=80)
        world.reconcile()
        world.end_pod(Stage.TRAIN, 0, ExitCode.INTERNAL)
        world.settle()
        world.run_pods()
        world.reconcile()
    assert world.status.reason == "RestartsExhausted"
