"""Whole reconciles against an API server: what is asked, what is written, and that twice changes nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.unit.cluster.api_server import status
from tests.unit.cluster.conftest import World
from tests.unit.runtime.objects import finetune_job, template

from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.reconcile import Reconciler
from finetune_operator.runtime.kinds import CLUSTER_TEMPLATES, FINETUNE_JOBS, JobKey
from finetune_operator.runtime.store import Ref

BOT = JobKey("team", "bot")
NOW = datetime(2026, 1, 1, tzinfo=UTC)
OWN = "/apis/finetune-operator.io/v1alpha1/namespaces/team/finetunejobs/bot"
EVENTS = "/api/v1/namespaces/team/events"
CONFIG_MAP = "/api/v1/namespaces/team/configmaps/bot-prepare"
CLAIM = "/api/v1/namespaces/team/persistentvolumeclaims/bot-workspace"
JOB = "/apis/batch/v1/namespaces/team/jobs/bot-prepare"


@pytest.fixture
def forgotten() -> list[JobKey]:
    return []


@pytest.fixture
def reconciler(world: World, forgotten: list[JobKey]) -> Reconciler:
    return Reconciler(
        world.store, world.client, world.observer, world.applier, forgotten.append, PlanSettings(), lambda: NOW
    )


def status_written(world: World) -> dict[str, Any]:
    status: dict[str, Any] = next(a for a in reversed(world.server.asked) if a.path == f"{OWN}/status").body["status"]
    return status


async def test_a_job_without_its_template_is_told_so_once_and_then_left_alone(
    world: World, reconciler: Reconciler
) -> None:
    world.knows(FINETUNE_JOBS, finetune_job())
    world.server.answer("POST", EVENTS, {})
    world.server.answer("PATCH", f"{OWN}/status", finetune_job(version=2))
    assert await reconciler.reconcile(BOT) is not None
    written = status_written(world)
    assert written["reason"] == "TemplateNotFound"
    world.knows(FINETUNE_JOBS, finetune_job(version=3, **written))
    before = len(world.server.asked)
    await reconciler.reconcile(BOT)
    assert len(world.server.asked) == before, "an unchanged job costs no request"


async def test_a_job_that_has_ended_or_is_gone_is_forgotten_without_a_request(
    world: World, reconciler: Reconciler, forgotten: list[JobKey]
) -> None:
    world.knows(FINETUNE_JOBS, finetune_job(phase="Succeeded"))
    assert await reconciler.reconcile(BOT) is None
    world.inbox.gone(FINETUNE_JOBS, Ref("team", "bot"), "uid-bot")
    assert await reconciler.reconcile(BOT) is None
    assert forgotten == [BOT, BOT]
    assert world.server.asked == []


async def test_a_job_that_is_being_deleted_is_left_to_the_garbage_collector(
    world: World, reconciler: Reconciler
) -> None:
    body = finetune_job()
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    world.knows(FINETUNE_JOBS, body)
    assert await reconciler.reconcile(BOT) is None
    assert world.server.asked == []


async def test_a_job_of_another_version_is_told_what_cannot_be_read(world: World, reconciler: Reconciler) -> None:
    body = finetune_job()
    body["spec"]["fromTheFuture"] = True
    world.knows(FINETUNE_JOBS, body)
    world.server.answer("POST", EVENTS, {})
    await reconciler.reconcile(BOT)
    (asked,) = world.server.asked
    assert asked.body["reason"] == "InvalidSpec"
    assert "fromTheFuture" in asked.body["message"]


@pytest.fixture
def starting(world: World) -> World:
    """A job that can start, whose workspace needs a claim."""
    body = finetune_job()
    del body["spec"]["datasets"][0]["secretRef"]
    body["spec"]["workspace"] = {"size": "1Gi"}
    world.knows(FINETUNE_JOBS, body)
    world.knows(CLUSTER_TEMPLATES, template("ClusterFineTuneTemplate"))
    world.server.answer("POST", EVENTS, {})
    world.server.answer("PATCH", f"{OWN}/status", finetune_job(version=2))
    return world


async def test_what_a_job_needs_is_applied_at_once_and_the_job_after_it(
    starting: World, reconciler: Reconciler
) -> None:
    starting.server.meeting = {("PATCH", CONFIG_MAP), ("PATCH", CLAIM)}
    starting.server.answer("PATCH", CONFIG_MAP, {"metadata": {"name": "bot-prepare"}})
    starting.server.answer("PATCH", CLAIM, {})
    starting.server.answer("PATCH", JOB, status(403, "Forbidden", "exceeded quota"))
    await reconciler.reconcile(BOT)
    asked = starting.server.paths("PATCH")
    assert set(asked[:2]) == {CONFIG_MAP, CLAIM}
    assert asked[2] == JOB
    assert "exceeded quota" in status_written(starting)["message"]


async def test_no_job_is_made_when_something_it_needs_is_refused(starting: World, reconciler: Reconciler) -> None:
    starting.server.answer("PATCH", CONFIG_MAP, {"metadata": {"name": "bot-prepare"}})
    starting.server.answer("PATCH", CLAIM, status(403, "Forbidden", "exceeded quota"))
    await reconciler.reconcile(BOT)
    assert JOB not in starting.server.paths("PATCH")
    assert status_written(starting)["reason"] == "Rejected"
