from __future__ import annotations

import pytest
from tests.unit.cluster.api_server import status
from tests.unit.cluster.conftest import World
from tests.unit.runtime.objects import child, finetune_job

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import JobStatus, Phase
from finetune_operator.cluster.apply import StaleError
from finetune_operator.cluster.client import RefusedError
from finetune_operator.plan.model.plan import Apply, DeleteJob, LabelAttempt, SetSuspend
from finetune_operator.runtime.kinds import BATCH_JOBS, FINETUNE_JOBS, PODS, JobKey
from finetune_operator.runtime.workers import TransientError

BOT = JobKey("team", "bot")
JOBS = "/apis/batch/v1/namespaces/team/jobs"
PODS_PATH = "/api/v1/namespaces/team/pods"
OWN = "/apis/finetune-operator.io/v1alpha1/namespaces/team/finetunejobs/bot"
MANIFEST = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "bot-train"}, "spec": {}}


async def test_a_job_that_was_made_is_known_before_the_watch_tells_of_it(world: World) -> None:
    world.knows(FINETUNE_JOBS, finetune_job())
    world.queue.clear()
    world.server.answer("PATCH", f"{JOBS}/bot-train", child("Job", "bot-train", version=7))
    await world.applier.carry_out(BOT, "uid-bot", Apply(MANIFEST))
    assert [job["metadata"]["name"] for job in world.store.children(BOT, BATCH_JOBS)] == ["bot-train"]
    assert world.queue.take() == BOT


async def test_a_refusal_is_for_the_planner_to_word(world: World) -> None:
    world.server.answer("PATCH", f"{JOBS}/bot-train", status(403, "Forbidden", "exceeded quota: gpus"))
    with pytest.raises(RefusedError, match="exceeded quota: gpus"):
        await world.applier.carry_out(BOT, "uid-bot", Apply(MANIFEST))


async def test_a_resolved_spec_that_was_written_is_not_read_again(world: World) -> None:
    path = "/api/v1/namespaces/team/configmaps/bot-resolved"
    made = {"metadata": {"name": "bot-resolved"}, "data": {}}
    world.server.answer("PATCH", path, made)
    manifest = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "bot-resolved"}}
    await world.applier.carry_out(BOT, "uid-bot", Apply(manifest))
    assert await world.resolved.of(BOT, "uid-bot") is None
    assert world.server.paths("GET") == []


async def test_suspending_patches_the_very_job_that_is_known(world: World) -> None:
    world.knows(FINETUNE_JOBS, finetune_job())
    world.knows(BATCH_JOBS, child("Job", "bot-train"))
    world.server.answer("PATCH", f"{JOBS}/bot-train", child("Job", "bot-train", version=2, spec={"suspend": True}))
    await world.applier.carry_out(BOT, "uid-bot", SetSuspend("bot-train", suspend=True))
    assert world.server.asked[0].body == {"spec": {"suspend": True}, "metadata": {"uid": "uid-bot-train"}}
    assert world.store.children(BOT, BATCH_JOBS)[0]["spec"]["suspend"] is True


@pytest.mark.parametrize("answer", [status(404, "NotFound"), status(409, "Conflict", "another uid")])
async def test_suspending_a_job_that_is_gone_brings_the_store_up_to_date(
    world: World, answer: dict[str, object]
) -> None:
    world.knows(FINETUNE_JOBS, finetune_job())
    world.knows(BATCH_JOBS, child("Job", "bot-train"))
    world.server.answer("PATCH", f"{JOBS}/bot-train", answer)
    with pytest.raises(StaleError):
        await world.applier.carry_out(BOT, "uid-bot", SetSuspend("bot-train", suspend=True))
    assert world.store.children(BOT, BATCH_JOBS) == []


async def test_pods_are_charged_with_a_label(world: World) -> None:
    world.knows(PODS, child("Pod", "p0"))
    world.server.answer("PATCH", f"{PODS_PATH}/p0", child("Pod", "p0", version=2))
    await world.applier.carry_out(BOT, "uid-bot", LabelAttempt(("p0", "already-gone"), 2))
    (asked,) = world.server.asked
    assert asked.body["metadata"] == {"labels": {"finetune-operator.io/attempt": "2"}, "uid": "uid-p0"}


async def test_a_deleted_job_stays_known_until_its_pods_are_gone(world: World) -> None:
    world.knows(FINETUNE_JOBS, finetune_job())
    world.knows(BATCH_JOBS, child("Job", "bot-train"))
    going = child("Job", "bot-train", version=2)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.server.answer("DELETE", f"{JOBS}/bot-train", going)
    await world.applier.carry_out(BOT, "uid-bot", DeleteJob("bot-train"))
    assert world.server.asked[0].body["propagationPolicy"] == "Foreground"
    assert "deletionTimestamp" in world.store.children(BOT, BATCH_JOBS)[0]["metadata"]


async def test_deleting_what_is_gone_is_done(world: World) -> None:
    world.knows(BATCH_JOBS, child("Job", "bot-train"))
    await world.applier.carry_out(BOT, "uid-bot", DeleteJob("bot-train"))
    assert world.store.children(BOT, BATCH_JOBS) == []
    await world.applier.carry_out(BOT, "uid-bot", DeleteJob("bot-train"))
    assert len(world.server.asked) == 1


async def test_the_status_is_written_on_the_version_it_was_decided_on(world: World) -> None:
    job = FineTuneJob.model_validate(finetune_job(version=3))
    world.knows(FINETUNE_JOBS, finetune_job(version=3))
    world.server.answer("PATCH", f"{OWN}/status", finetune_job(version=4, phase="Preparing"))
    await world.applier.write_status(BOT, job, JobStatus(phase=Phase.PREPARING))
    (asked,) = world.server.asked
    assert asked.body["metadata"]["resourceVersion"] == "3"
    assert asked.body["status"]["phase"] == "Preparing"
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


async def test_a_job_that_vanished_before_its_status_is_forgotten(world: World) -> None:
    world.knows(FINETUNE_JOBS, finetune_job())
    await world.applier.write_status(BOT, FineTuneJob.model_validate(finetune_job()), JobStatus())
    assert world.store.job(BOT) is None
