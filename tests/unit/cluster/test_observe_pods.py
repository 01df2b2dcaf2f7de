"""What is observed of pods, and what only events tell of them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from tests.unit.cluster.api_server import status
from tests.unit.cluster.conftest import World
from tests.unit.cluster.pod_json import SCHEDULED, container
from tests.unit.cluster.started_job import (
    BOT,
    COMPLETE,
    CREATED,
    LATER,
    LIVE_PODS,
    RESOLVED,
    STARTED,
    TRAIN,
    TWO,
    job,
    listed,
    rank,
)
from tests.unit.runtime.objects import child, finetune_job

from finetune_operator.runtime.kinds import BATCH_JOBS, FINETUNE_JOBS, PODS, JobKey
from finetune_trainer.contract import Progress, Stage

RAN = {"number": 1, "start": "2026-01-01T00:00:00Z", "runningSince": "2026-01-01T00:00:30Z"}
EVENTS = "/api/v1/namespaces/team/events"
CREATING = {
    "phase": "Pending",
    "conditions": [SCHEDULED],
    "containerStatuses": [container(waiting={"reason": "ContainerCreating"})],
}


# What the job names


async def test_a_complete_job_whose_pods_have_all_succeeded_is_believed(started: World) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train", spec=TWO, status=COMPLETE))
    started.knows(PODS, rank(0, phase="Succeeded"))
    started.knows(PODS, rank(1, phase="Succeeded"))
    await started.observer.observe(BOT, job(**STARTED), LATER)
    assert started.asked == []


async def test_of_a_stage_that_is_behind_nothing_is_confirmed(started: World) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-prepare", status=COMPLETE))
    started.knows(BATCH_JOBS, child("Job", "bot-train"))
    started.knows(PODS, rank(0))
    await started.observer.observe(BOT, job(**STARTED), LATER)
    assert started.asked == []


async def test_a_rank_that_has_vanished_is_confirmed_by_a_live_list(started: World) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train", spec=TWO))
    started.knows(PODS, rank(0))
    started.server.answer("GET", LIVE_PODS, listed(rank(0), rank(1)))
    seen = await started.observer.observe(BOT, job(**STARTED, attempts=[RAN]), LATER)
    assert [pod.name for pod in seen.observed.stages[Stage.TRAIN].pods] == ["p0", "p1"]
    await started.observer.observe(BOT, job(**STARTED, attempts=[RAN]), LATER)
    assert started.asked == [LIVE_PODS], "what was found is in the store"


@pytest.mark.parametrize(
    "attempt", [{"number": 1, "start": RAN["start"]}, {**RAN, "end": "2026-01-01T00:00:40Z"}], ids=["waits", "over"]
)
async def test_a_rank_is_not_missed_before_all_have_run_or_after_the_attempt(
    started: World, attempt: dict[str, Any]
) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train", spec=TWO))
    started.knows(PODS, rank(0))
    await started.observer.observe(BOT, job(**STARTED, attempts=[attempt]), CREATED)
    assert started.asked == []


async def test_of_an_ended_job_the_children_are_read_live(world: World) -> None:
    over: dict[str, Any] = {**STARTED, "phase": "Failed"}
    world.knows(FINETUNE_JOBS, finetune_job(**over))
    world.knows(BATCH_JOBS, child("Job", "bot-train"))
    world.knows(PODS, rank(0))
    world.server.answer("GET", TRAIN, child("Job", "bot-train"))
    world.server.answer("GET", LIVE_PODS, listed(rank(0)))
    seen = await world.observer.observe(BOT, job(**over), LATER)
    assert [pod.name for pod in seen.observed.stages[Stage.TRAIN].pods] == ["p0"]


async def test_a_job_of_an_ended_job_that_is_gone_is_forgotten(world: World) -> None:
    over: dict[str, Any] = {**STARTED, "phase": "Failed"}
    world.knows(FINETUNE_JOBS, finetune_job(**over))
    world.knows(BATCH_JOBS, child("Job", "bot-train"))
    world.server.answer("GET", LIVE_PODS, listed())
    assert (await world.observer.observe(BOT, job(**over), LATER)).observed.stages == {}
    assert world.store.get(BATCH_JOBS, "team", "bot-train") is None


# What only events tell


async def test_a_job_whose_pods_are_refused_says_so_from_its_events(started: World) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train"))
    words = 'pods "bot-train-0" is forbidden: exceeded quota: gpus'
    told = {"reason": "FailedCreate", "message": words, "lastTimestamp": "2026-01-01T00:00:30Z"}
    older = {"reason": "FailedCreate", "message": "an older one", "lastTimestamp": "2026-01-01T00:00:01Z"}
    started.server.answer("GET", EVENTS, {"items": [told, older, {"reason": "Other"}]})
    seen = await started.observer.observe(BOT, job(**STARTED), LATER)
    found = seen.observed.stages[Stage.TRAIN]
    assert (found.not_created, found.pods) == (f"FailedCreate: {words}", ()), "no pod is made up"
    assert seen.recheck_after == 15


async def test_why_a_gang_lacks_a_rank_is_told(started: World) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train", spec=TWO))
    started.knows(PODS, rank(0))
    started.server.answer("GET", EVENTS, {"items": [{"reason": "FailedCreate", "message": "quota"}]})
    seen = await started.observer.observe(BOT, job(**STARTED), LATER)
    found = seen.observed.stages[Stage.TRAIN]
    assert (found.not_created, [pod.index for pod in found.pods]) == ("FailedCreate: quota", [0])


@pytest.mark.parametrize(("status", "after", "patience"), [({"ready": 0}, 1, 3), ({}, 20, 30)])
async def test_a_job_that_was_just_made_or_still_waits_in_line_is_given_time_for_its_pods(
    started: World, status: dict[str, int], after: float, patience: float
) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train", status=status))
    seen = await started.observer.observe(BOT, job(**STARTED), CREATED + timedelta(seconds=after))
    assert seen.observed.stages[Stage.TRAIN].pods == ()
    assert seen.recheck_after == patience
    assert started.asked == []


async def test_a_job_that_was_taken_up_and_has_no_pod_is_asked_about_after_three_seconds(started: World) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train", status={"ready": 0}))
    started.server.answer("GET", EVENTS, {"items": [{"reason": "FailedCreate", "message": "quota"}]})
    seen = await started.observer.observe(BOT, job(**STARTED), CREATED + timedelta(seconds=3))
    assert seen.observed.stages[Stage.TRAIN].not_created == "FailedCreate: quota"


async def test_a_pod_that_waits_for_a_volume_says_so_from_its_events(started: World) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train", status={"active": 1}))
    started.knows(PODS, child("Pod", "p", status=CREATING))
    started.server.answer("GET", EVENTS, {"items": [{"reason": "FailedMount", "message": "no such volume"}]})
    seen = await started.observer.observe(BOT, job(**STARTED), LATER)
    assert seen.observed.stages[Stage.TRAIN].pods[0].problem == "FailedMount: no such volume"


async def test_the_newest_warning_is_told_by_whichever_time_its_event_has(started: World) -> None:
    """An event of a series has one time, one of an older client another, one that came once a third."""

    def event(message: str, **times: Any) -> dict[str, Any]:
        return {"reason": "FailedMount", "message": message, **times}

    started.knows(BATCH_JOBS, child("Job", "bot-train", status={"active": 1}))
    started.knows(PODS, child("Pod", "p", status=CREATING))
    series = event(
        "of a series",
        series={"lastObservedTime": "2026-01-01T00:00:03Z"},
        lastTimestamp="2026-01-01T00:00:00Z",
        eventTime="2026-01-01T00:00:00Z",
    )
    counted = event("counted", lastTimestamp="2026-01-01T00:00:02Z", eventTime="2026-01-01T00:00:00Z", series=None)
    once = event("once", eventTime="2026-01-01T00:00:01Z", lastTimestamp=None)
    told = []
    for items in ([series, counted, once], [once, counted], [event("never"), once]):
        started.server.answer("GET", EVENTS, {"items": items})
        seen = await started.observer.observe(BOT, job(**STARTED), LATER)
        told.append(seen.observed.stages[Stage.TRAIN].pods[0].problem)
        started.time.advance(15)
    assert told == ["FailedMount: of a series", "FailedMount: counted", "FailedMount: once"]


@pytest.fixture
def gang(started: World) -> World:
    """Four pods that wait for their images."""
    started.knows(BATCH_JOBS, child("Job", "bot-train", spec={"completions": 4}))
    for index in range(4):
        started.knows(PODS, rank(index) | {"status": CREATING})
    started.server.answer("GET", EVENTS, {"items": []})
    return started


def asked_about(world: World) -> list[str]:
    queries = [one.query["fieldSelector"] for one in world.server.asked if one.path == EVENTS]
    return [query.split(",")[0].removeprefix("involvedObject.uid=uid-") for query in queries]


async def test_of_a_gang_that_waits_one_pod_is_asked_about_and_the_answer_remembered(gang: World) -> None:
    for _ in range(5):
        seen = await gang.observer.observe(BOT, job(**STARTED), LATER)
        assert seen.recheck_after == 15, "when the answer is over"
        gang.time.advance(2)
    assert asked_about(gang) == ["p0"]


async def test_the_next_time_another_pod_of_the_gang_is_asked_about(gang: World) -> None:
    for _ in range(5):
        await gang.observer.observe(BOT, job(**STARTED), LATER)
        gang.time.advance(15)
    assert asked_about(gang) == ["p0", "p1", "p2", "p3", "p0"]


async def test_a_pod_with_a_problem_is_asked_about_again(gang: World) -> None:
    gang.server.answer("GET", EVENTS, {"items": [{"reason": "FailedMount", "message": "no"}]})
    for _ in range(2):
        seen = await gang.observer.observe(BOT, job(**STARTED), LATER)
        gang.time.advance(15)
    assert asked_about(gang) == ["p0", "p0"]
    assert [pod.problem for pod in seen.observed.stages[Stage.TRAIN].pods] == ["FailedMount: no", None, None, None]


async def test_a_warning_without_words_is_told_by_its_reason(gang: World) -> None:
    gang.server.answer("GET", EVENTS, {"items": [{"reason": "FailedMount"}]})
    seen = await gang.observer.observe(BOT, job(**STARTED), LATER)
    assert seen.observed.stages[Stage.TRAIN].pods[0].problem == "FailedMount: "


async def test_a_forgotten_job_leaves_nothing_behind(gang: World) -> None:
    gang.observer.forget(JobKey("team", "never-seen"))
    await gang.observer.observe(BOT, job(**STARTED), LATER)
    gang.board.report(BOT, "p0", Progress(stage=Stage.TRAIN, updated_at=CREATED), CREATED)
    gang.observer.forget(BOT)
    await gang.observer.observe(BOT, job(**STARTED), LATER)
    assert asked_about(gang) == ["p0", "p0"]
    assert gang.board.newest(BOT) is None
    assert gang.server.paths("GET").count(RESOLVED) == 2


async def test_of_a_forgotten_job_a_job_that_was_gone_is_asked_for_again(started: World) -> None:
    for _ in range(2):
        await started.observer.observe(BOT, job(**STARTED), LATER)
        started.observer.forget(BOT)
    assert started.asked == [TRAIN, LIVE_PODS] * 2


async def test_events_that_may_not_be_read_are_no_problem(gang: World) -> None:
    gang.server.answer("GET", EVENTS, status(403, "Forbidden"))
    seen = await gang.observer.observe(BOT, job(**STARTED), LATER)
    assert all(pod.problem is None for pod in seen.observed.stages[Stage.TRAIN].pods)


# Progress


async def test_progress_counts_only_while_the_pod_that_reported_it_runs(started: World) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train", status={"active": 1}))
    started.knows(PODS, child("Pod", "p", status={"phase": "Running"}))
    progress = Progress(stage=Stage.TRAIN, updated_at=CREATED, step=3)
    started.board.report(BOT, "p", progress, CREATED)
    assert (await started.observer.observe(BOT, job(**STARTED), LATER)).observed.progress == progress
    started.knows(PODS, child("Pod", "p", version=2, status={"phase": "Failed"}))
    assert (await started.observer.observe(BOT, job(**STARTED), LATER)).observed.progress is None
