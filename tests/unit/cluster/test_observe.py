from __future__ import annotations

import pytest
from tests.unit.cluster.api_server import status
from tests.unit.cluster.conftest import World
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
from tests.unit.cluster.test_resolved import config_map
from tests.unit.runtime.objects import child, finetune_job, template

from finetune_operator.api.resources import ClusterFineTuneTemplate, FineTuneJob, FineTuneTemplate
from finetune_operator.cluster.children import Relabel
from finetune_operator.cluster.client import RefusedError
from finetune_operator.plan.model.observed import Presence
from finetune_operator.runtime.kinds import BATCH_JOBS, CLUSTER_TEMPLATES, PODS, TEMPLATES
from finetune_operator.runtime.store import Ref
from finetune_trainer.contract import Stage

OTHER = "/apis/finetune-operator.io/v1alpha1/namespaces/team/finetunejobs/other"


# What the job names


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


async def test_claims_that_the_job_names_are_looked_for(world: World) -> None:
    world.server.answer("GET", "/api/v1/namespaces/team/persistentvolumeclaims/there", {})
    world.knows(CLUSTER_TEMPLATES, template("ClusterFineTuneTemplate"))
    body = finetune_job()
    body["spec"] |= {"workspace": {"claim": "there"}, "model": {"uri": "pvc://missing/model"}}
    seen = await world.observer.observe(BOT, FineTuneJob.model_validate(body), LATER)
    assert seen.observed.claims == {"there": Presence.PRESENT, "missing": Presence.MISSING}


async def test_a_secret_that_may_not_be_read_is_unreadable_and_nothing_more(world: World) -> None:
    world.server.answer("GET", "/api/v1/namespaces/team/secrets/creds", status(403, "Forbidden"))
    world.knows(CLUSTER_TEMPLATES, template("ClusterFineTuneTemplate"))
    seen = await world.observer.observe(BOT, job(), LATER)
    assert seen.observed.secrets == {"creds": Presence.UNREADABLE}


def resuming() -> FineTuneJob:
    body = finetune_job()
    body["spec"]["checkpoints"] = {"resumeFrom": {"job": "other"}}
    return FineTuneJob.model_validate(body)


async def test_the_job_to_resume_from_is_looked_up(world: World) -> None:
    world.knows(CLUSTER_TEMPLATES, template("ClusterFineTuneTemplate"))
    assert (await world.observer.observe(BOT, resuming(), LATER)).observed.resume_from is None
    world.server.answer("GET", OTHER, finetune_job("other"))
    found = (await world.observer.observe(BOT, resuming(), LATER)).observed.resume_from
    assert found is not None
    assert found.metadata.name == "other"


async def test_a_job_to_resume_from_that_cannot_be_read_is_as_good_as_none(world: World) -> None:
    world.knows(CLUSTER_TEMPLATES, template("ClusterFineTuneTemplate"))
    world.server.answer("GET", OTHER, {"spec": {"fromTheFuture": True}})
    assert (await world.observer.observe(BOT, resuming(), LATER)).observed.resume_from is None


@pytest.mark.parametrize(("generation", "asks"), [(1, False), (2, True)])
async def test_of_a_started_job_only_one_whose_spec_has_changed_is_compared_with_what_it_would_resume_from(
    started: World,
    generation: int,
    asks: bool,  # noqa: FBT001 - drawn
) -> None:
    started.knows(CLUSTER_TEMPLATES, template("ClusterFineTuneTemplate"))
    started.server.answer("GET", RESOLVED, config_map())
    body = finetune_job(**STARTED | {"observedGeneration": 1})
    body["metadata"]["generation"] = generation
    body["spec"]["checkpoints"] = {"resumeFrom": {"job": "other"}}
    await started.observer.observe(BOT, FineTuneJob.model_validate(body), LATER)
    assert (OTHER in started.asked) == asks


# Children by name and owner


async def test_of_a_started_job_only_the_resolved_spec_is_read_and_only_once(started: World) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train", status={"active": 1}))
    started.knows(PODS, child("Pod", "p", status={"phase": "Running"}))
    for _ in range(3):
        await started.observer.observe(BOT, job(**STARTED), LATER)
    assert started.server.paths("GET") == [RESOLVED]


@pytest.mark.parametrize("owner", ["uid-of-its-predecessor", ""])
async def test_a_job_of_our_name_that_is_not_ours_is_no_child(started: World, owner: str) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train", owner=owner or "x"))
    seen = await started.observer.observe(BOT, job(**STARTED), LATER)
    assert seen.observed.stages == {}
    assert started.asked == [LIVE_PODS], "for pods that a Job of ours may have left"


async def test_a_job_of_ours_by_another_name_is_no_stage(started: World) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-copy"))
    assert (await started.observer.observe(BOT, job(**STARTED), LATER)).observed.stages == {}


async def test_pods_stand_with_their_own_job_by_rank(started: World) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train", spec=TWO, status={"active": 2}))
    started.knows(PODS, rank(1))
    started.knows(PODS, rank(0))
    started.knows(PODS, child("Pod", "another-jobs", owner="uid-other", status={"phase": "Running"}))
    seen = await started.observer.observe(BOT, job(**STARTED), LATER)
    assert [pod.name for pod in seen.observed.stages[Stage.TRAIN].pods] == ["p0", "p1"]


# What seems to be lost


async def test_a_job_that_the_status_knows_of_is_asked_for_before_it_is_taken_for_gone(started: World) -> None:
    made_with = {"app.kubernetes.io/managed-by": "finetune-operator", "finetune-operator.io/job": "bot"}
    bare = child("Job", "bot-train", spec={"template": {"metadata": {"labels": made_with}}})
    bare["metadata"]["labels"] = {}
    started.server.answer("GET", TRAIN, bare)
    started.server.answer("GET", LIVE_PODS, listed())
    seen = await started.observer.observe(BOT, job(**STARTED), CREATED)
    assert seen.observed.stages[Stage.TRAIN].uid == "uid-bot-train"
    assert seen.relabel == (Relabel("bot-train", "uid-bot-train", made_with),)
    assert started.store.children(BOT, BATCH_JOBS)


async def test_a_job_that_lost_its_labels_is_known_again_however_often_the_watch_says_that_it_is_gone(
    started: World,
) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train", version=3))
    started.inbox.gone(BATCH_JOBS, Ref("team", "bot-train"), "uid-bot-train", 4)
    started.server.answer("GET", TRAIN, child("Job", "bot-train", version=5))
    assert Stage.TRAIN in (await started.observer.observe(BOT, job(**STARTED), CREATED)).observed.stages
    await started.observer.observe(BOT, job(**STARTED), CREATED)
    assert started.asked == [TRAIN], "the second look finds it in the store"


async def test_a_job_that_is_gone_indeed_is_asked_for_once(started: World) -> None:
    for _ in range(3):
        assert (await started.observer.observe(BOT, job(**STARTED), LATER)).observed.stages == {}
    assert started.asked == [TRAIN, LIVE_PODS], "for the Job, and for pods that it may have left"


async def test_a_job_that_goes_a_second_time_is_asked_for_a_second_time(started: World) -> None:
    for version in (3, 5):
        assert (await started.observer.observe(BOT, job(**STARTED), LATER)).observed.stages == {}
        started.knows(BATCH_JOBS, child("Job", "bot-train", version=version))
        assert Stage.TRAIN in (await started.observer.observe(BOT, job(**STARTED), CREATED)).observed.stages
        started.inbox.gone(BATCH_JOBS, Ref("team", "bot-train"), "uid-bot-train", version + 1)
    assert started.asked == [TRAIN, LIVE_PODS] * 2


async def test_a_job_that_has_a_job_has_started_also_before_its_status_says_so(started: World) -> None:
    started.server.answer("GET", "/api/v1/namespaces/team/events", {"items": []})
    started.resolved.created(BOT, "uid-bot", config_map())
    started.knows(BATCH_JOBS, child("Job", "bot-prepare"))
    seen = await started.observer.observe(BOT, job(), LATER)
    assert seen.observed.template is None
    assert seen.observed.resolved is not None, "it goes on with what it started with"


@pytest.mark.parametrize("phase", ["Failed", "Succeeded"])
async def test_pods_that_outlive_their_job_are_seen_until_they_have_ended(started: World, phase: str) -> None:
    orphan = child("Pod", "bot-train-0-x", owner="uid-of-a-job-that-is-gone")
    running, ended = orphan | {"status": {"phase": "Running"}}, orphan | {"status": {"phase": phase}}
    stranger = child("Pod", "mine", job="another", owner="uid-x") | {"status": {"phase": "Running"}}
    started.server.answer("GET", LIVE_PODS, listed(running, stranger), listed(ended, stranger))
    seen = await started.observer.observe(BOT, job(**STARTED), LATER)
    assert [pod.name for pod in seen.observed.strays] == ["bot-train-0-x"]
    assert (await started.observer.observe(BOT, job(**STARTED), LATER)).observed.strays == ()
    (first, _) = (one.query["labelSelector"] for one in started.server.asked if one.path == LIVE_PODS)
    assert first == "finetune-operator.io/job=bot,finetune-operator.io/stage=train"


async def test_pods_that_outlive_their_job_are_seen_on_every_page_of_the_list(started: World) -> None:
    first, second = (
        child("Pod", name, owner="uid-of-a-job-that-is-gone") | {"status": {"phase": "Running"}}
        for name in ("bot-train-0-x", "bot-train-1-x")
    )
    page = {"items": [first], "metadata": {"resourceVersion": "50", "continue": "more"}}
    started.server.answer("GET", LIVE_PODS, page, listed(second))
    seen = await started.observer.observe(BOT, job(**STARTED), LATER)
    assert [pod.name for pod in seen.observed.strays] == ["bot-train-0-x", "bot-train-1-x"]


async def test_a_job_of_another_owner_that_is_found_live_is_not_ours(started: World) -> None:
    started.server.answer("GET", TRAIN, child("Job", "bot-train", owner="uid-x"))
    assert (await started.observer.observe(BOT, job(**STARTED), LATER)).observed.stages == {}


async def test_a_right_that_is_missing_is_no_proof_that_a_job_is_gone(started: World) -> None:
    started.server.answer("GET", TRAIN, status(403, "Forbidden"))
    with pytest.raises(RefusedError):
        await started.observer.observe(BOT, job(**STARTED), LATER)


async def test_nothing_is_asked_for_a_job_whose_stage_has_not_begun(started: World) -> None:
    waiting = {**STARTED, "phase": "Pending"}
    await started.observer.observe(BOT, job(**waiting), LATER)
    assert started.asked == []


async def test_a_complete_job_whose_pod_is_not_known_is_confirmed_by_a_live_list(started: World) -> None:
    started.knows(BATCH_JOBS, child("Job", "bot-train", status=COMPLETE))
    started.knows(PODS, rank(1, version=50))
    started.server.answer("GET", LIVE_PODS, listed(rank(0, phase="Succeeded"), child("Pod", "q", owner="uid-x")))
    seen = await started.observer.observe(BOT, job(**STARTED), LATER)
    assert [pod.name for pod in seen.observed.stages[Stage.TRAIN].pods] == ["p0"]
    query = next(one.query for one in started.server.asked if one.path == LIVE_PODS)
    assert query["labelSelector"] == "batch.kubernetes.io/controller-uid=uid-bot-train"
    assert [pod["metadata"]["name"] for pod in started.store.children(BOT, PODS)] == ["p0"]
    started.knows(PODS, rank(1, version=51))
    assert len(started.store.children(BOT, PODS)) == 2, "it is there again: its label had been taken away"
