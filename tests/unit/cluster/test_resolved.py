from __future__ import annotations

from typing import Any

import pytest
from tests.unit.cluster.api_server import ApiServer, status
from tests.unit.plan.builders import a_job, a_template

from finetune_operator.cluster.client import Client
from finetune_operator.cluster.resolved import ResolvedSpecs
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.resolve.resolver import resolve
from finetune_operator.runtime.kinds import JobKey

BOT = JobKey("team", "bot")
LIST = "/api/v1/configmaps"
ONE = "/api/v1/namespaces/team/configmaps/bot-resolved"
SPEC = resolve(a_job(output={"uri": "s3://team/out"}), a_template(), PlanSettings())


def config_map(name: str = "bot", uid: str = "uid-bot", *, going: bool = False) -> dict[str, Any]:
    owner = {"kind": "FineTuneJob", "name": name, "uid": uid, "controller": True}
    metadata = {"name": f"{name}-resolved", "namespace": "team", "ownerReferences": [owner]}
    metadata |= {"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {}
    return {"metadata": metadata, "data": {"resolved.json": SPEC.model_dump_json(by_alias=True, exclude_none=True)}}


def page(*items: dict[str, Any], more: str = "") -> dict[str, Any]:
    return {"items": list(items), "metadata": {"resourceVersion": "9", "continue": more}}


def uid_of(key: JobKey) -> str | None:
    return None if key.name == "over" else f"uid-{key.name}"


@pytest.fixture
def specs(client: Client) -> ResolvedSpecs:
    return ResolvedSpecs(client)


async def test_all_are_listed_in_pages_by_label_and_none_is_asked_for_again(
    server: ApiServer, specs: ResolvedSpecs
) -> None:
    server.answer("GET", LIST, page(config_map(), more="x"), page(config_map("other", "uid-other")))
    await specs.load((), uid_of)
    assert await specs.of(BOT, "uid-bot", started=True) == SPEC
    assert await specs.of(JobKey("team", "other"), "uid-other", started=True) == SPEC
    assert server.paths("GET") == [LIST, LIST]
    selector = "app.kubernetes.io/managed-by=finetune-operator,finetune-operator.io/resolved=true"
    assert {asked.query["labelSelector"] for asked in server.asked} == {selector}


async def test_only_the_namespaces_that_are_watched_are_listed(server: ApiServer, specs: ResolvedSpecs) -> None:
    for namespace in ("team", "other"):
        server.answer("GET", f"/api/v1/namespaces/{namespace}/configmaps", page())
    await specs.load(("team", "other"), uid_of)
    assert server.paths("GET") == ["/api/v1/namespaces/team/configmaps", "/api/v1/namespaces/other/configmaps"]


async def test_a_job_that_has_not_started_and_is_not_in_the_list_has_none(
    server: ApiServer, specs: ResolvedSpecs
) -> None:
    server.answer("GET", LIST, page())
    await specs.load((), uid_of)
    assert await specs.of(BOT, "uid-bot", started=False) is None
    assert server.paths("GET") == [LIST]


async def test_one_of_a_former_version_which_has_no_label_is_asked_for(server: ApiServer, specs: ResolvedSpecs) -> None:
    server.answer("GET", LIST, page())
    server.answer("GET", ONE, config_map())
    await specs.load((), uid_of)
    assert await specs.of(BOT, "uid-bot", started=True) == SPEC


@pytest.mark.parametrize(
    "listed",
    [config_map("over", "uid-over"), config_map(uid="uid-of-its-predecessor"), config_map(going=True)],
    ids=["over", "predecessor", "going"],
)
async def test_of_jobs_that_are_over_or_gone_nothing_is_kept(
    server: ApiServer, specs: ResolvedSpecs, listed: dict[str, Any]
) -> None:
    server.answer("GET", LIST, page(listed))
    await specs.load((), uid_of)
    assert await specs.of(BOT, "uid-bot", started=False) is None
    assert specs._known == {BOT: ("uid-bot", None)}  # noqa: SLF001 - memory is what this is about


@pytest.mark.parametrize("code", [403, 404, 503])
async def test_where_they_cannot_be_listed_each_is_asked_for(
    server: ApiServer, specs: ResolvedSpecs, code: int
) -> None:
    server.answer("GET", LIST, status(code))
    server.answer("GET", ONE, config_map())
    await specs.load((), uid_of)
    assert await specs.of(BOT, "uid-bot", started=False) == SPEC


@pytest.mark.parametrize("found", [config_map(uid="uid-of-its-predecessor"), config_map(going=True)])
async def test_one_that_is_not_ours_or_is_going_is_none(
    server: ApiServer, specs: ResolvedSpecs, found: dict[str, Any]
) -> None:
    server.answer("GET", ONE, found)
    assert await specs.of(BOT, "uid-bot", started=True) is None


async def test_the_next_job_of_the_name_has_its_own(server: ApiServer, specs: ResolvedSpecs) -> None:
    server.answer("GET", ONE, config_map(), config_map(uid="uid-next"))
    assert await specs.of(BOT, "uid-bot", started=True) == SPEC
    assert await specs.of(BOT, "uid-next", started=True) == SPEC
    assert len(server.asked) == 2
