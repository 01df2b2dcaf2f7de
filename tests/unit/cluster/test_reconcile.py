"""Whole reconciles against an API server: what is asked, what is written, and that twice changes nothing."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs
from tests.unit.cluster.api_server import status
from tests.unit.cluster.conftest import World
from tests.unit.cluster.pod_json import condition
from tests.unit.cluster.reconciling import BOT, OWN, STATUS, Events, Tried
from tests.unit.runtime.objects import child, finetune_job, template

from finetune_operator import reconcile
from finetune_operator.api.resources import ClusterFineTuneTemplate, FineTuneJob
from finetune_operator.cluster.apply import StaleError
from finetune_operator.cluster.client import RefusedError, UnavailableError
from finetune_operator.plan.manifests.stages import resolved_config_map
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.resolve.resolver import resolve
from finetune_operator.runtime.kinds import BATCH_JOBS, CLUSTER_TEMPLATES, FINETUNE_JOBS
from finetune_operator.runtime.lease import NotLeadingError
from finetune_operator.runtime.store import Ref

CONFIG_MAPS = "/api/v1/namespaces/team/configmaps"
CLAIMS = "/api/v1/namespaces/team/persistentvolumeclaims"
JOBS = "/apis/batch/v1/namespaces/team/jobs"
PREPARE = f"{JOBS}/bot-prepare"
OVER: dict[str, Any] = {
    "phase": "Failed",
    "observedGeneration": 1,
    "completionTime": "2025-12-31T00:00:00Z",
    "reason": "Diverged",
}


@pytest.fixture
def tried(world: World) -> Tried:
    world.server.answer("PATCH", STATUS, finetune_job(version=2))
    return Tried(world, Events(world.client))


def startable(version: int = 1, **status: Any) -> dict[str, Any]:
    """A job that needs nothing but a claim for its workspace."""
    body = finetune_job(version=version, **status)
    del body["spec"]["datasets"][0]["secretRef"]
    body["spec"]["workspace"] = {"size": "1Gi"}
    return body


@pytest.fixture
def starting(tried: Tried) -> Tried:
    """A job that can start."""
    world, body = tried.world, startable()
    world.knows(FINETUNE_JOBS, body)
    world.knows(CLUSTER_TEMPLATES, template("ClusterFineTuneTemplate"))
    world.server.answer("PATCH", STATUS, {**body, "metadata": {**body["metadata"], "resourceVersion": "2"}})
    world.server.kept |= {CONFIG_MAPS: {}, CLAIMS: {}}
    world.server.answer("POST", JOBS, child("Job", "bot-prepare"))
    return tried


@pytest.fixture
def suspending(tried: Tried) -> Tried:
    """A job that prepares and is to be suspended."""
    body = finetune_job(phase="Preparing", stage="prepare", startTime="2025-12-31T00:00:00Z", observedGeneration=1)
    body["spec"]["runPolicy"] = {"suspend": True}
    job = FineTuneJob.model_validate(body)
    spec = resolve(job, ClusterFineTuneTemplate.model_validate(template("ClusterFineTuneTemplate")), PlanSettings())
    tried.world.knows(FINETUNE_JOBS, body)
    tried.world.knows(BATCH_JOBS, child("Job", "bot-prepare"))
    tried.world.server.answer("GET", OWN, {**body, "metadata": {**body["metadata"], "resourceVersion": "8"}})
    tried.world.server.answer("GET", f"{CONFIG_MAPS}/bot-resolved", resolved_config_map(job, spec))
    return tried


async def test_a_job_without_its_template_is_told_so_once_and_then_left_alone(tried: Tried) -> None:
    tried.world.knows(FINETUNE_JOBS, finetune_job())
    assert await tried.once() is not None
    assert tried.written()["reason"] == "TemplateNotFound"
    assert [event.reason for event in tried.events.posted] == ["TemplateNotFound"]
    tried.world.knows(FINETUNE_JOBS, finetune_job(version=3, **tried.written()))
    before = len(tried.world.server.asked)
    await tried.once()
    assert len(tried.world.server.asked) == before, "an unchanged job costs no request"


async def test_what_a_job_needs_comes_before_it_and_what_is_told_of_it_at_the_next_look(starting: Tried) -> None:
    await starting.once()
    needed = [("POST", CLAIMS), ("POST", JOBS), ("POST", CONFIG_MAPS)]
    assert starting.wrote() == needed
    assert (starting.rested, starting.events.posted) == ([BOT], [])
    await starting.once()
    assert starting.wrote() == [*needed, ("PATCH", STATUS)]
    assert starting.written()["phase"] == "Preparing"
    assert "Accepted" in [event.reason for event in starting.events.posted]
    assert starting.rested == [BOT]


async def test_an_operator_that_dies_before_it_tells_of_a_job_leaves_that_to_the_next_one(starting: Tried) -> None:
    await starting.once()
    successor = Tried(starting.world, Events(starting.world.client))
    await successor.once()
    assert successor.wrote()[3:] == [("PATCH", STATUS)]
    assert successor.written()["phase"] == "Preparing"
    assert "Accepted" in [event.reason for event in successor.events.posted]


async def test_a_job_that_somebody_deletes_again_and_again_gets_into_the_status(starting: Tried) -> None:
    await starting.once()
    starting.world.inbox.gone(BATCH_JOBS, Ref("team", "bot-prepare"), "uid-bot-prepare")
    starting.world.server.answer("POST", JOBS, child("Job", "bot-prepare"))
    await starting.once()
    assert starting.wrote().count(("POST", JOBS)) == 2
    assert starting.wrote()[-1] == ("PATCH", STATUS)


async def test_what_keeps_a_job_from_being_made_is_told_at_once(starting: Tried) -> None:
    starting.world.server.answer("POST", JOBS, status(403, "Forbidden", "exceeded quota"))
    await starting.once()
    assert starting.written()["reason"] == "Rejected"
    assert starting.rested == []


async def test_no_event_is_sent_of_a_status_that_could_not_be_written(starting: Tried) -> None:
    await starting.once()
    starting.world.server.answer("PATCH", STATUS, status(409, "Conflict", "modified"))
    starting.world.server.answer("GET", OWN, finetune_job(version=9))
    await starting.fails(StaleError)
    assert starting.events.posted == []


async def test_pods_are_taken_down_only_when_the_status_says_why(suspending: Tried) -> None:
    server = suspending.world.server
    server.answer("DELETE", PREPARE, {"kind": "Job"} | child("Job", "bot-prepare", version=2))
    server.answer("PATCH", STATUS, status(409, "Conflict", "modified"), finetune_job(version=9))
    await suspending.fails(StaleError)
    assert server.paths("DELETE") == []
    await suspending.once()
    order = [one.method for one in server.asked if one.path in {STATUS, PREPARE}]
    assert order == ["PATCH", "PATCH", "DELETE"]
    assert suspending.written()["reason"] == "Suspending"


async def test_labels_that_were_taken_from_a_job_are_given_back_before_anything_else(tried: Tried) -> None:
    running: dict[str, Any] = {"phase": "Preparing", "stage": "prepare", "startTime": "2025-12-31T00:00:00Z"}
    tried.world.knows(FINETUNE_JOBS, finetune_job(**running))
    tried.world.knows(CLUSTER_TEMPLATES, template("ClusterFineTuneTemplate"))
    tried.world.server.answer("GET", "/api/v1/namespaces/team/secrets/creds", {})
    bare = child("Job", "bot-prepare", spec={"template": {"metadata": {"labels": {"finetune-operator.io/job": "bot"}}}})
    bare["metadata"]["labels"] = {}
    tried.world.server.answer("GET", PREPARE, bare)
    tried.world.server.answer("POST", CONFIG_MAPS, {"metadata": {"name": "bot-resolved"}, "data": {}})
    tried.world.server.answer("PATCH", PREPARE, child("Job", "bot-prepare", version=2))
    await tried.once()
    assert tried.world.server.paths("PATCH")[0] == PREPARE
    assert JOBS not in tried.world.server.paths("POST"), "there is one: no second gang"


# What stands in the way


async def test_no_job_is_made_when_something_it_needs_is_refused(starting: Tried) -> None:
    starting.world.server.answer("POST", CLAIMS, status(403, "Forbidden", "exceeded quota"))
    assert await starting.once() is not None
    assert JOBS not in starting.world.server.paths("POST")
    assert (starting.written()["reason"], starting.written()["phase"]) == ("Rejected", "Pending")
    assert "exceeded quota" in starting.written()["message"]


@pytest.mark.parametrize(
    ("uid", "reason", "logged"),
    [("uid-of-its-predecessor", "PredecessorGoing", ["info"]), (None, "NameTaken", ["warning", "warning"])],
    ids=["earlier", "nobody"],
)
async def test_a_name_that_is_taken_is_told_with_its_owner(
    starting: Tried, uid: str | None, reason: str, logged: list[str]
) -> None:
    """One that becomes free by itself is logged when the waiting for it begins, and is no warning."""
    there = child("Job", "bot-prepare", owner=uid)
    if uid is None:
        there["metadata"]["ownerReferences"] = []
    starting.world.server.answer("POST", JOBS, status(409, "AlreadyExists"))
    starting.world.server.answer("GET", PREPARE, there)
    with capture_logs() as logs:
        await starting.once()
        starting.world.knows(FINETUNE_JOBS, startable(version=3, **starting.written()))
        await starting.once()
    assert starting.world.server.paths("POST").count(JOBS) == 2
    assert [entry["log_level"] for entry in logs if "bot-prepare" in entry.get("error", "")] == logged
    assert starting.written()["reason"] == reason
    assert (uid or "nobody") in starting.written()["message"]
    assert starting.world.server.paths("DELETE") == []


def stalled(status: dict[str, Any]) -> bool:
    return any(c["type"] == "Stalled" and c["status"] == "True" for c in status["conditions"])


async def test_a_server_error_gets_into_the_status_when_it_goes_on(starting: Tried) -> None:
    starting.world.server.answer("POST", JOBS, status(500, "InternalError", "failed calling webhook x"))
    await starting.fails(UnavailableError)
    await starting.fails(UnavailableError, after=3)
    assert starting.writes() == 0
    await starting.fails(UnavailableError, after=3)
    assert "failed calling webhook x" in starting.written()["message"]
    assert (starting.written()["reason"], stalled(starting.written())) == ("OperatorFault", True)
    await starting.fails(UnavailableError, after=60)
    assert starting.writes() == 1, "the same words are written once"


async def test_what_passes_in_a_moment_is_not_told(starting: Tried) -> None:
    starting.world.server.answer("POST", JOBS, status(503))
    for _ in range(6):
        await starting.fails(UnavailableError, after=0.5)
    assert starting.writes() == 0


async def test_a_mistake_of_the_planner_gets_into_the_status_after_three_tries(
    starting: Tried, monkeypatch: pytest.MonkeyPatch
) -> None:
    def overflows(*_: Any) -> None:
        raise OverflowError("date value out of range")

    monkeypatch.setattr(reconcile, "plan", overflows)
    for _ in range(2):
        await starting.fails(OverflowError)
    assert starting.writes() == 0
    await starting.fails(OverflowError)
    assert "date value out of range" in starting.written()["message"]
    assert [event.reason for event in starting.events.posted] == ["OperatorFault"]


async def test_a_missing_right_to_look_is_told_and_ends_nothing(tried: Tried) -> None:
    training: dict[str, Any] = {"phase": "Training", "stage": "train", "startTime": "2025-12-31T00:00:00Z"}
    tried.world.knows(FINETUNE_JOBS, finetune_job(**training))
    tried.world.server.answer("GET", f"{JOBS}/bot-train", status(403, "Forbidden", "cannot get jobs"))
    for _ in range(3):
        await tried.fails(RefusedError)
    assert (tried.written()["phase"], tried.written()["reason"]) == ("Training", "OperatorFault")
    assert tried.world.server.paths("POST") == tried.world.server.paths("DELETE") == []


async def test_a_success_forgets_the_failures_before_it(starting: Tried) -> None:
    told = status(500, "InternalError", "no")
    starting.world.server.answer("POST", JOBS, told, told, child("Job", "bot-prepare"), told)
    await starting.fails(UnavailableError)
    await starting.fails(UnavailableError, after=10)
    await starting.once()
    starting.world.inbox.gone(BATCH_JOBS, Ref("team", "bot-prepare"), "uid-bot-prepare")
    before = starting.writes()
    await starting.fails(UnavailableError, after=10)
    await starting.fails(UnavailableError, after=10)
    assert starting.writes() == before


async def test_who_does_not_lead_counts_no_failure(starting: Tried, monkeypatch: pytest.MonkeyPatch) -> None:
    def fenced(*_: Any) -> None:
        raise NotLeadingError

    monkeypatch.setattr(reconcile, "plan", fenced)
    for _ in range(5):
        await starting.fails(NotLeadingError, after=10)
    assert starting.world.server.paths("PATCH") == []


async def test_a_status_that_cannot_be_written_hides_no_failure(starting: Tried) -> None:
    starting.world.server.answer("POST", JOBS, status(500, "InternalError", "first"))
    starting.world.server.answer("PATCH", STATUS, status(500, "InternalError", "second"))
    for _ in range(4):
        with pytest.raises(UnavailableError, match="first"):
            await starting.once()
        starting.now += timedelta(seconds=3)


async def test_a_removal_that_fails_again_and_again_does_not_change_the_status_there_and_back(
    suspending: Tried,
) -> None:
    world, reasons = suspending.world, []
    world.server.answer("DELETE", PREPARE, status(403, "Forbidden", "no right to delete"))
    for version in range(10, 16):
        written = suspending.writes()
        await suspending.fails(RefusedError)
        if suspending.writes() > written:
            reasons.append(suspending.written()["reason"])
            body = {**world.server.answers["GET", OWN][0], "status": suspending.written()}
            world.knows(FINETUNE_JOBS, {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}})
    assert reasons == ["Suspending", "OperatorFault"]


async def test_a_job_of_another_version_is_told_what_cannot_be_read_and_keeps_the_rest_of_its_status(
    tried: Tried,
) -> None:
    trained = {"type": "Prepared", "status": "True", "reason": "Prepared", "lastTransitionTime": "2025-12-31T00:00:00Z"}
    body = finetune_job(version=7, phase="Training", conditions=[trained])
    body["spec"]["fromTheFuture"] = True
    tried.world.knows(FINETUNE_JOBS, body)
    assert await tried.once() is None
    (asked,) = tried.world.server.asked
    assert asked.headers["Content-Type"] == "application/merge-patch+json"
    assert asked.body["metadata"] == {"uid": "uid-bot", "resourceVersion": "7"}
    told = asked.body["status"]
    assert (told["phase"], told["reason"], stalled(told)) == ("Training", "InvalidSpec", True)
    assert "fromTheFuture" in told["message"]
    assert trained in told["conditions"]
    assert [event.reason for event in tried.events.posted] == ["InvalidSpec"]
    tried.world.knows(FINETUNE_JOBS, {**body, "status": told, "metadata": {**body["metadata"], "resourceVersion": "8"}})
    await tried.once()
    assert len(tried.world.server.asked) == 1, "told once"


# Jobs that are over, or going


async def test_a_quiet_job_that_has_ended_or_is_gone_is_forgotten_without_a_request(tried: Tried) -> None:
    tried.world.knows(FINETUNE_JOBS, finetune_job(**OVER))
    assert await tried.once() is None
    tried.world.inbox.gone(FINETUNE_JOBS, Ref("team", "bot"), "uid-bot")
    assert await tried.once() is None
    assert tried.forgotten == [BOT, BOT]
    assert tried.world.server.asked == []


async def test_a_restart_costs_nothing_for_jobs_that_have_ended(tried: Tried) -> None:
    for number in range(100):
        tried.world.knows(FINETUNE_JOBS, finetune_job(f"job-{number}", **OVER))
        tried.world.knows(
            BATCH_JOBS, child("Job", f"j{number}", job=f"job-{number}", status={"conditions": [condition("Failed")]})
        )
    tried.world.inbox.close()
    tried.world.inbox.open()
    assert tried.world.queue.take() is None


async def test_an_edit_of_a_job_that_has_ended_is_observed(tried: Tried) -> None:
    edited = finetune_job(version=5, **OVER)
    edited["metadata"]["generation"] = 2
    tried.world.knows(FINETUNE_JOBS, edited)
    tried.world.server.answer("GET", OWN, edited)
    answer = finetune_job(version=6, **{**OVER, "observedGeneration": 2})
    answer["metadata"]["generation"] = 2
    tried.world.server.answer("PATCH", STATUS, answer)
    await tried.once()
    assert (tried.written()["phase"], tried.written()["observedGeneration"]) == ("Failed", 2)
    await tried.once()
    assert tried.forgotten == [BOT]


async def test_a_job_that_has_ended_and_is_gone_is_forgotten(tried: Tried) -> None:
    edited = finetune_job(version=5, **OVER)
    edited["metadata"]["generation"] = 2
    tried.world.knows(FINETUNE_JOBS, edited)
    assert await tried.once() is None
    assert (tried.forgotten, tried.world.store.job(BOT)) == ([BOT], None)


async def test_jobs_that_outlive_a_failed_job_are_ended(tried: Tried) -> None:
    over: dict[str, Any] = {**OVER, "stage": "train", "startTime": "2025-12-30T00:00:00Z"}
    tried.world.knows(FINETUNE_JOBS, finetune_job(**over))
    tried.world.knows(BATCH_JOBS, child("Job", "bot-train"))
    tried.world.server.answer("GET", OWN, finetune_job(**over))
    tried.world.server.answer("GET", f"{JOBS}/bot-train", child("Job", "bot-train"))
    tried.world.server.answer(
        "GET", "/api/v1/namespaces/team/pods", {"items": [], "metadata": {"resourceVersion": "9"}}
    )
    done = child("Job", "bot-train", version=2, status={"conditions": [condition("Failed")]})
    tried.world.server.answer("PATCH", f"{JOBS}/bot-train", done)
    await tried.once()
    assert tried.world.server.paths("PATCH") == [f"{JOBS}/bot-train"]
    assert await tried.once() is None
    assert tried.forgotten == [BOT]


async def test_a_job_that_has_just_ended_is_given_time_to_wind_up(tried: Tried) -> None:
    tried.world.knows(FINETUNE_JOBS, finetune_job(**{**OVER, "completionTime": "2025-12-31T23:59:50Z"}))
    tried.world.knows(BATCH_JOBS, child("Job", "bot-train"))
    assert await tried.once() == 5
    assert tried.world.server.asked == []


async def test_a_job_that_is_being_deleted_is_left_to_the_garbage_collector(tried: Tried) -> None:
    body = finetune_job()
    body["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    tried.world.knows(FINETUNE_JOBS, body)
    assert await tried.once() is None
    assert tried.world.server.asked == []
