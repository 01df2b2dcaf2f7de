from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.unit.cluster.conftest import World
from tests.unit.cluster.pod_json import SCHEDULED, condition, container
from tests.unit.runtime.objects import child, finetune_job, template

from finetune_operator.api.resources import ClusterFineTuneTemplate, FineTuneJob, FineTuneTemplate
from finetune_operator.cluster.resolved import LeftoverError
from finetune_operator.plan.model.observed import Presence
from finetune_operator.runtime.kinds import BATCH_JOBS, CLUSTER_TEMPLATES, PODS, TEMPLATES, JobKey
from finetune_trainer.contract import Progress, Stage

BOT = JobKey("team", "bot")
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
LATER = CREATED + timedelta(minutes=1)
STARTED = {"startTime": "2026-01-01T00:00:00Z", "phase": "Training"}
RESOLVED = "/api/v1/namespaces/team/configmaps/bot-resolved"
EVENTS = "/api/v1/namespaces/team/events"


def job(**status: Any) -> FineTuneJob:
    return FineTuneJob.model_validate(finetune_job(**status))


async def test_a_job_without_its_template_costs_no_request(world: World) -> None:
    seen = await world.observer.observe(BOT, job(), LATER)
    assert seen.observed.template is None
    assert world.server.asked == []


async def test_the_namespaces_own_template_comes_first(world: World) -> None:
    world.server.answer("GET", "/api/v1/namespaces/team/secrets/creds", {})
    world.knows(CLUSTER_TEMPLATES, template("ClusterFineTuneTemplate"))
    shared = await world.observer.observe(BOT, job(), LATER)
    assert isinstance(shared.observed.template, ClusterFineTuneTemplate)
    world.knows(TEMPLATES, template("FineTuneTemplate", namespace="team"))
    own = await world.observer.observe(BOT, job(), LATER)
    assert isinstance(own.observed.template, FineTuneTemplate)
    assert own.observed.secrets == {"creds": Presence.PRESENT}


async def test_of_a_started_job_only_the_resolved_spec_is_read_and_only_once(world: World) -> None:
    world.knows(BATCH_JOBS, child("Job", "bot-train", status={"active": 1}))
    world.knows(PODS, child("Pod", "p", owner="uid-bot-train", status={"phase": "Running"}))
    for _ in range(3):
        await world.observer.observe(BOT, job(**STARTED), LATER)
    assert world.server.paths("GET") == [RESOLVED]


async def test_children_of_an_earlier_job_of_the_same_name_are_waited_for(world: World) -> None:
    world.knows(BATCH_JOBS, child("Job", "bot-train", owner="uid-of-its-predecessor"))
    with pytest.raises(LeftoverError):
        await world.observer.observe(BOT, job(**STARTED), LATER)


async def test_a_resolved_spec_of_an_earlier_job_is_waited_for(world: World) -> None:
    world.server.answer("GET", RESOLVED, {"metadata": {"ownerReferences": [{"uid": "uid-of-its-predecessor"}]}})
    with pytest.raises(LeftoverError):
        await world.observer.observe(BOT, job(**STARTED), LATER)


async def test_pods_stand_with_their_own_job_by_rank(world: World) -> None:
    world.knows(BATCH_JOBS, child("Job", "bot-train", status={"active": 2}))
    for name, index in (("b", "1"), ("a", "0")):
        body = child("Pod", name, owner="uid-bot-train", status={"phase": "Running"})
        body["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = index
        world.knows(PODS, body)
    world.knows(PODS, child("Pod", "another-jobs", owner="uid-other", status={"phase": "Running"}))
    seen = await world.observer.observe(BOT, job(**STARTED), LATER)
    assert [pod.name for pod in seen.observed.stages[Stage.TRAIN].pods] == ["a", "b"]


async def test_a_job_whose_pods_are_refused_says_so_from_its_events(world: World) -> None:
    world.knows(BATCH_JOBS, child("Job", "bot-train"))
    words = 'pods "bot-train-0" is forbidden: exceeded quota: gpus'
    told = {"reason": "FailedCreate", "message": words, "lastTimestamp": "2026-01-01T00:00:30Z"}
    older = {"reason": "FailedCreate", "message": "an older one", "lastTimestamp": "2026-01-01T00:00:01Z"}
    world.server.answer("GET", EVENTS, {"items": [told, older, {"reason": "Other"}]})
    seen = await world.observer.observe(BOT, job(**STARTED), LATER)
    (pod,) = seen.observed.stages[Stage.TRAIN].pods
    assert pod.problem == f"FailedCreate: {words}"
    assert seen.recheck_after is not None


async def test_a_job_that_was_just_made_is_given_time_for_its_pods(world: World) -> None:
    world.knows(BATCH_JOBS, child("Job", "bot-train"))
    seen = await world.observer.observe(BOT, job(**STARTED), CREATED + timedelta(seconds=1))
    assert seen.observed.stages[Stage.TRAIN].pods == ()
    assert seen.recheck_after == 3
    assert EVENTS not in world.server.paths("GET")


@pytest.mark.parametrize(
    "body",
    [
        child("Job", "bot-train", spec={"suspend": True}),
        child("Job", "bot-train", status={"conditions": [condition("Complete")]}),
        child("Job", "bot-train", status={"conditions": [condition("FailureTarget")]}),
    ],
)
async def test_a_job_that_wants_no_pods_is_left_in_peace(world: World, body: dict[str, Any]) -> None:
    world.knows(BATCH_JOBS, body)
    seen = await world.observer.observe(BOT, job(**STARTED), LATER)
    assert seen.recheck_after is None
    assert EVENTS not in world.server.paths("GET")


async def test_a_pod_that_waits_for_a_volume_says_so_from_its_events(world: World) -> None:
    world.knows(BATCH_JOBS, child("Job", "bot-train", status={"active": 1}))
    creating = {
        "phase": "Pending",
        "conditions": [SCHEDULED],
        "containerStatuses": [container(waiting={"reason": "ContainerCreating"})],
    }
    world.knows(PODS, child("Pod", "p", owner="uid-bot-train", status=creating))
    world.server.answer("GET", EVENTS, {"items": [{"reason": "FailedMount", "message": "no such volume"}]})
    seen = await world.observer.observe(BOT, job(**STARTED), LATER)
    assert seen.observed.stages[Stage.TRAIN].pods[0].problem == "FailedMount: no such volume"


async def test_progress_counts_only_while_the_pod_that_reported_it_runs(world: World) -> None:
    world.knows(BATCH_JOBS, child("Job", "bot-train", status={"active": 1}))
    world.knows(PODS, child("Pod", "p", owner="uid-bot-train", status={"phase": "Running"}))
    progress = Progress(stage=Stage.TRAIN, updated_at=CREATED, step=3)
    world.board.report(BOT, "p", progress, CREATED)
    assert (await world.observer.observe(BOT, job(**STARTED), LATER)).observed.progress == progress
    world.knows(PODS, child("Pod", "p", version=2, owner="uid-bot-train", status={"phase": "Failed"}))
    assert (await world.observer.observe(BOT, job(**STARTED), LATER)).observed.progress is None
