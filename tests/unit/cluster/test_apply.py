from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.cluster.api_server import status
from tests.unit.cluster.conftest import World
from tests.unit.runtime.objects import child, finetune_job

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import Attempt, JobStatus, Phase, ProgressStatus
from finetune_operator.cluster.apply import NameTakenError, StaleError
from finetune_operator.cluster.children import Relabel
from finetune_operator.cluster.client import RefusedError, UnavailableError
from finetune_operator.plan.model.plan import Create, DeleteJob, DeletePods, EndJob, NameTaken, QueueJob
from finetune_operator.runtime.kinds import BATCH_JOBS, FINETUNE_JOBS, PODS, JobKey
from finetune_operator.runtime.workers import TransientError

BOT = JobKey("team", "bot")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
UID = "uid-bot"
JOBS = "/apis/batch/v1/namespaces/team/jobs"
TRAIN = f"{JOBS}/bot-train"
PODS_PATH = "/api/v1/namespaces/team/pods"
CLAIMS = "/api/v1/namespaces/team/persistentvolumeclaims"
CONFIG_MAPS = "/api/v1/namespaces/team/configmaps"
OWN = "/apis/finetune-operator.io/v1alpha1/namespaces/team/finetunejobs/bot"
OWNER = {"apiVersion": "v1", "kind": "FineTuneJob", "name": "bot", "uid": UID, "controller": True}
EXISTS = status(409, "AlreadyExists", "already exists")
OURS = {"finetune-operator.io/job": "bot", "finetune-operator.io/stage": "train"}


def manifest(kind: str, name: str, *owners: dict[str, Any], **labels: str) -> dict[str, Any]:
    version = "batch/v1" if kind == "Job" else "v1"
    metadata = {"name": name, "labels": labels} | ({"ownerReferences": list(owners)} if owners else {})
    return {"apiVersion": version, "kind": kind, "metadata": metadata, "spec": {}}


JOB = manifest("Job", "bot-train", OWNER)
RESOLVED = manifest("ConfigMap", "bot-resolved", OWNER)


@pytest.fixture
def running(world: World) -> World:
    world.knows(FINETUNE_JOBS, finetune_job())
    world.knows(BATCH_JOBS, child("Job", "bot-train"))
    world.queue.clear()
    return world


# Creating


async def test_a_job_that_was_made_is_known_before_the_watch_tells_of_it(world: World) -> None:
    world.knows(FINETUNE_JOBS, finetune_job())
    world.queue.clear()
    world.server.answer("POST", JOBS, child("Job", "bot-train", version=7))
    await world.applier.carry_out(BOT, UID, Create(JOB))
    assert world.server.asked[0].body == JOB
    assert [job["metadata"]["name"] for job in world.store.children(BOT, BATCH_JOBS)] == ["bot-train"]
    assert world.queue.take() == BOT


async def test_a_refusal_is_for_the_planner_to_word(world: World) -> None:
    world.server.answer("POST", JOBS, status(403, "Forbidden", "exceeded quota: gpus"))
    with pytest.raises(RefusedError, match="exceeded quota: gpus"):
        await world.applier.carry_out(BOT, UID, Create(JOB))


async def test_a_resolved_spec_that_was_written_is_not_read_again(world: World) -> None:
    world.server.answer("POST", CONFIG_MAPS, RESOLVED | {"data": {"resolved.json": "written"}})
    await world.applier.carry_out(BOT, UID, Create(RESOLVED))
    with pytest.raises(ValueError, match="Invalid JSON"):  # it was taken from the answer
        await world.resolved.of(BOT, UID, started=True)
    assert world.server.paths("GET") == []


@pytest.mark.parametrize("kind", ["ConfigMap", "Service", "PersistentVolumeClaim"])
async def test_what_is_there_and_ours_is_as_good_as_made(world: World, kind: str) -> None:
    root = f"/api/v1/namespaces/team/{kind.lower()}s"
    world.server.answer("POST", root, EXISTS)
    world.server.answer("GET", f"{root}/x", manifest(kind, "x", OWNER))
    await world.applier.carry_out(BOT, UID, Create(manifest(kind, "x", OWNER)))
    assert world.server.paths("PATCH") == world.server.paths("DELETE") == []


async def test_a_job_of_ours_that_the_store_did_not_know_is_looked_at_first(world: World) -> None:
    world.knows(FINETUNE_JOBS, finetune_job())
    world.server.answer("POST", JOBS, EXISTS)
    world.server.answer("GET", TRAIN, child("Job", "bot-train"))
    with pytest.raises(StaleError):
        await world.applier.carry_out(BOT, UID, Create(JOB))
    assert world.store.children(BOT, BATCH_JOBS)
    assert world.server.paths("PATCH") == []


async def test_a_job_of_ours_that_lost_its_labels_gets_those_back_that_it_was_made_with(world: World) -> None:
    world.knows(FINETUNE_JOBS, finetune_job())
    bare = child("Job", "bot-train", spec={"template": {"metadata": {"labels": {**OURS, "team": "a"}}}})
    bare["metadata"]["labels"] = {"finetune-operator.io/stage": "train"}
    world.server.answer("POST", JOBS, EXISTS)
    world.server.answer("GET", TRAIN, bare)
    world.server.answer("PATCH", TRAIN, child("Job", "bot-train", version=2))
    with pytest.raises(StaleError):
        await world.applier.carry_out(BOT, UID, Create(JOB))
    patch = world.server.asked[-1].body
    assert patch == {"metadata": {"labels": {"finetune-operator.io/job": "bot"}, "uid": "uid-bot-train"}}


async def test_something_else_that_conflicted_is_tried_again(world: World) -> None:
    world.server.answer("POST", JOBS, status(409, "Conflict", "the quota has been modified"))
    with pytest.raises(StaleError, match="the quota has been modified"):
        await world.applier.carry_out(BOT, UID, Create(JOB))


def taken_by(owner: dict[str, Any] | None, *, going: bool = False) -> dict[str, Any]:
    found = manifest("Job", "bot-train", *([owner] if owner else []))
    return found | {"metadata": found["metadata"] | ({"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {})}


TAKEN = [
    (taken_by(None), "nobody", False),
    (taken_by({**OWNER, "kind": "CronJob", "name": "nightly", "uid": "u2"}), "CronJob nightly, uid u2", False),
    (taken_by({**OWNER, "name": "other", "uid": "u3"}), "FineTuneJob other, uid u3", False),
    (taken_by({**OWNER, "uid": "u4"}), "FineTuneJob bot, uid u4", True),
    (taken_by({**OWNER, "controller": False}), "nobody", False),
    (taken_by(OWNER, going=True), "FineTuneJob bot, uid uid-bot", True),
    (taken_by(None, going=True), "nobody", True),
]


@pytest.mark.parametrize(("found", "owner", "going"), TAKEN)
async def test_what_is_not_ours_or_is_going_is_named_and_left_alone(
    world: World, found: dict[str, Any], owner: str, *, going: bool
) -> None:
    world.server.answer("POST", JOBS, EXISTS)
    world.server.answer("GET", TRAIN, found)
    with pytest.raises(NameTakenError) as raised:
        await world.applier.carry_out(BOT, UID, Create(JOB))
    assert raised.value.taken == NameTaken("Job", "bot-train", owner, is_going=going)
    assert {asked.method for asked in world.server.asked} == {"POST", "GET"}


@pytest.mark.parametrize(("uid", "ours"), [(UID, True), ("uid-of-its-predecessor", False)])
async def test_a_claim_that_outlives_its_job_is_ours_by_the_uid_on_its_label(
    world: World, uid: str, *, ours: bool
) -> None:
    lasting = manifest("PersistentVolumeClaim", "bot-workspace-uid")
    there = manifest("PersistentVolumeClaim", "bot-workspace-uid", **{"finetune-operator.io/job-uid": uid})
    world.server.answer("POST", CLAIMS, EXISTS)
    world.server.answer("GET", f"{CLAIMS}/bot-workspace-uid", there)
    if ours:
        await world.applier.carry_out(BOT, UID, Create(lasting))
    else:
        with pytest.raises(NameTakenError):
            await world.applier.carry_out(BOT, UID, Create(lasting))


async def test_a_claim_of_this_very_job_that_should_outlive_it_is_not_waited_for(world: World) -> None:
    """It would go with the job, for which its data is to be kept."""
    there = manifest("PersistentVolumeClaim", "w", OWNER)
    world.server.answer("POST", CLAIMS, EXISTS)
    world.server.answer("GET", f"{CLAIMS}/w", there)
    with pytest.raises(NameTakenError) as raised:
        await world.applier.carry_out(BOT, UID, Create(manifest("PersistentVolumeClaim", "w")))
    assert not raised.value.taken.is_going


async def test_a_claim_with_our_label_and_another_owner_is_not_ours(world: World) -> None:
    there = manifest("PersistentVolumeClaim", "w", {**OWNER, "uid": "u"}, **{"finetune-operator.io/job-uid": UID})
    world.server.answer("POST", CLAIMS, EXISTS)
    world.server.answer("GET", f"{CLAIMS}/w", there)
    with pytest.raises(NameTakenError):
        await world.applier.carry_out(BOT, UID, Create(manifest("PersistentVolumeClaim", "w", OWNER)))


# Changing


PATCHES = [
    (EndJob("bot-train", "uid-bot-train"), {"spec": {"activeDeadlineSeconds": 1}, "metadata": {}}),
    (
        QueueJob("bot-train", "uid-bot-train", "gpus"),
        {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "gpus"}}},
    ),
]


@pytest.mark.parametrize(("action", "patch"), PATCHES)
async def test_a_job_is_changed_only_if_it_is_the_very_one(
    running: World, action: EndJob | QueueJob, patch: dict[str, Any]
) -> None:
    changed = child("Job", "bot-train", version=2, spec={"activeDeadlineSeconds": 1})
    running.server.answer("PATCH", TRAIN, changed)
    await running.applier.carry_out(BOT, UID, action)
    guarded = {**patch, "metadata": {**patch["metadata"], "uid": "uid-bot-train"}}
    assert running.server.asked[0].body == guarded
    assert running.store.children(BOT, BATCH_JOBS)[0]["spec"] == {"activeDeadlineSeconds": 1}


async def test_a_job_that_is_gone_cannot_be_queued_and_is_forgotten(running: World) -> None:
    with pytest.raises(StaleError):
        await running.applier.carry_out(BOT, UID, QueueJob("bot-train", "uid-bot-train", "gpus"))
    assert running.store.children(BOT, BATCH_JOBS) == []


async def test_a_job_that_is_another_by_now_is_the_one_that_is_known(running: World) -> None:
    another = child("Job", "bot-train", version=5)
    another["metadata"]["uid"] = "uid-another"
    running.server.answer("PATCH", TRAIN, status(409, "Conflict", "another uid"))
    running.server.answer("GET", TRAIN, another)
    with pytest.raises(StaleError):
        await running.applier.carry_out(BOT, UID, QueueJob("bot-train", "uid-bot-train", "gpus"))
    assert [job["metadata"]["uid"] for job in running.store.children(BOT, BATCH_JOBS)] == ["uid-another"]


async def test_a_conflict_over_a_job_that_is_still_there_does_not_forget_it(running: World) -> None:
    running.server.answer("PATCH", TRAIN, status(409, "Conflict", "the object has been modified"))
    running.server.answer("GET", TRAIN, child("Job", "bot-train", version=5))
    with pytest.raises(StaleError):
        await running.applier.carry_out(BOT, UID, QueueJob("bot-train", "uid-bot-train", "gpus"))
    assert running.store.children(BOT, BATCH_JOBS)


async def test_ending_what_is_gone_is_done(running: World) -> None:
    await running.applier.carry_out(BOT, UID, EndJob("bot-train", "uid-bot-train"))
    assert running.store.children(BOT, BATCH_JOBS) == []


async def test_labels_are_given_back(running: World) -> None:
    running.server.answer("PATCH", TRAIN, child("Job", "bot-train", version=2))
    await running.applier.relabel(BOT, Relabel("bot-train", "uid-bot-train", {"a": "b"}))
    assert running.server.asked[0].body == {"metadata": {"labels": {"a": "b"}, "uid": "uid-bot-train"}}


# Deleting


async def test_a_deleted_job_stays_known_until_its_pods_are_gone(running: World) -> None:
    going = child("Job", "bot-train", version=2)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    running.server.answer("DELETE", TRAIN, going)
    await running.applier.carry_out(BOT, UID, DeleteJob("bot-train", "uid-bot-train"))
    body = running.server.asked[0].body
    assert body == {"propagationPolicy": "Foreground", "preconditions": {"uid": "uid-bot-train"}}
    assert "deletionTimestamp" in running.store.children(BOT, BATCH_JOBS)[0]["metadata"]


async def test_deleting_what_is_gone_is_done(running: World) -> None:
    await running.applier.carry_out(BOT, UID, DeleteJob("bot-train", "uid-bot-train"))
    assert running.store.children(BOT, BATCH_JOBS) == []


async def test_pods_are_deleted_by_name_and_uid(running: World) -> None:
    for name in ("p0", "p1"):
        running.knows(PODS, child("Pod", name))
    going = child("Pod", "p0", version=2)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:02:00Z"
    running.server.answer("DELETE", f"{PODS_PATH}/p0", going)
    await running.applier.carry_out(BOT, UID, DeletePods("bot-train", ("p0", "p1", "never-was")))
    deleted = {asked.path: asked.body for asked in running.server.asked if asked.method == "DELETE"}
    assert deleted == {
        f"{PODS_PATH}/{name}": {"propagationPolicy": "Background", "preconditions": {"uid": f"uid-{name}"}}
        for name in ("p0", "p1")
    }
    (left,) = running.store.children(BOT, PODS)
    assert left["metadata"]["deletionTimestamp"] == "2026-01-01T00:02:00Z"


async def test_a_pod_that_cannot_be_deleted_keeps_none_of_the_others(running: World) -> None:
    names = tuple(f"p{number}" for number in range(40))
    for name in names:
        running.knows(PODS, child("Pod", name))
        running.server.answer("DELETE", f"{PODS_PATH}/{name}", {"kind": "Status"})
    running.server.answer("DELETE", f"{PODS_PATH}/p0", status(503))
    with pytest.raises(UnavailableError):
        await running.applier.carry_out(BOT, UID, DeletePods("bot-train", names))
    assert set(running.server.paths("DELETE")) == {f"{PODS_PATH}/{name}" for name in names}


async def test_without_the_right_to_delete_pods_their_job_is_deleted_so_that_the_gang_restarts(running: World) -> None:
    running.knows(PODS, child("Pod", "p0"))
    running.server.answer("DELETE", f"{PODS_PATH}/p0", status(403, "Forbidden"))
    running.server.answer("DELETE", TRAIN, child("Job", "bot-train", version=9))
    await running.applier.carry_out(BOT, UID, DeletePods("bot-train", ("p0",)))
    deleted = next(one for one in running.server.asked if (one.method, one.path) == ("DELETE", TRAIN))
    assert deleted.body == {"propagationPolicy": "Foreground", "preconditions": {"uid": "uid-bot-train"}}


async def test_a_field_that_a_child_does_not_have_is_refused_and_not_dropped(world: World) -> None:
    world.server.answer("POST", JOBS, child("Job", "bot-train"))
    await world.applier.carry_out(BOT, UID, Create(child("Job", "bot-train") | {"apiVersion": "batch/v1"}))
    assert world.server.asked[0].query["fieldValidation"] == "Strict"


# The status


async def test_the_status_is_written_on_the_version_it_was_decided_on(world: World) -> None:
    job = FineTuneJob.model_validate(finetune_job(version=3))
    world.knows(FINETUNE_JOBS, finetune_job(version=3))
    world.server.answer("PATCH", f"{OWN}/status", finetune_job(version=4, phase="Preparing"))
    await world.applier.write_status(BOT, job, JobStatus(phase=Phase.PREPARING))
    (asked,) = world.server.asked
    assert asked.body == {
        "apiVersion": "finetune-operator.io/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "bot", "namespace": "team", "uid": UID, "resourceVersion": "3"},
        "status": JobStatus(phase=Phase.PREPARING).model_dump(mode="json", by_alias=True, exclude_none=True),
    }
    record = world.store.job(BOT)
    assert record is not None
    assert (record.version, record.phase) == (4, "Preparing")


async def test_a_status_that_was_decided_on_an_old_version_is_decided_again_on_the_new(world: World) -> None:
    job = FineTuneJob.model_validate(finetune_job(version=3))
    world.knows(FINETUNE_JOBS, finetune_job(version=3))
    world.server.answer("PATCH", f"{OWN}/status", status(409, "Conflict", "the object has been modified"))
    world.server.answer("GET", OWN, finetune_job(version=9))
    with pytest.raises(TransientError):
        await world.applier.write_status(BOT, job, JobStatus(phase=Phase.PREPARING))
    record = world.store.job(BOT)
    assert record is not None
    assert record.version == 9


async def test_a_job_that_vanished_before_its_status_is_forgotten_and_nothing_follows(world: World) -> None:
    world.knows(FINETUNE_JOBS, finetune_job())
    with pytest.raises(StaleError):
        await world.applier.write_status(BOT, FineTuneJob.model_validate(finetune_job()), JobStatus())
    assert world.store.job(BOT) is None


async def test_a_status_with_fields_that_the_crd_lacks_is_applied_without_them(world: World) -> None:
    lacking = (
        *(".status.attempt", ".status.attempts[0].gpuSeconds", ".status.progress.stale"),
        *(".status.attempts[1].topology.gpus", ".status.artifacts.uri"),
    )
    words = "errors:\n" + "\n".join(f"  {field}: field not declared in schema" for field in lacking)
    world.server.answer("PATCH", f"{OWN}/status", status(422, "Invalid", words), finetune_job(version=4))
    attempts = tuple(Attempt(number=number, start=NOON, gpu_seconds=7) for number in (1, 2))
    after = JobStatus(phase=Phase.TRAINING, progress=ProgressStatus(step=2), attempt=2, attempts=attempts)
    await world.applier.write_status(BOT, FineTuneJob.model_validate(finetune_job(version=3)), after)
    refused, written = (asked.body for asked in world.server.asked)
    expected = refused["status"]
    del expected["attempt"], expected["progress"]["stale"]
    for attempt in expected["attempts"]:
        del attempt["gpuSeconds"]
    assert written == refused


async def test_a_status_that_is_refused_for_another_reason_is_not_written_in_another_way(world: World) -> None:
    world.server.answer("PATCH", f"{OWN}/status", status(422, "Invalid", "status.phase: Unsupported value"))
    with pytest.raises(RefusedError):
        await world.applier.write_status(BOT, FineTuneJob.model_validate(finetune_job()), JobStatus())
    assert len(world.server.asked) == 1


async def test_single_fields_of_a_status_are_changed_on_the_version_that_was_seen(world: World) -> None:
    world.knows(FINETUNE_JOBS, finetune_job(version=3))
    world.server.answer("PATCH", f"{OWN}/status", finetune_job(version=4))
    await world.applier.patch_status(BOT, UID, 3, {"message": "m"})
    (asked,) = world.server.asked
    assert asked.body == {"metadata": {"uid": UID, "resourceVersion": "3"}, "status": {"message": "m"}}
    assert asked.headers["Content-Type"] == "application/merge-patch+json"
