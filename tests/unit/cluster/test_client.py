from __future__ import annotations

import pytest
from tests.unit.cluster.api_server import ApiServer, client_of, status

from finetune_operator.cluster.client import (
    ApiError,
    Client,
    ConflictError,
    NotFoundError,
    RefusedError,
    UnavailableError,
)
from finetune_operator.cluster.presence import presence
from finetune_operator.plan.model.observed import Presence
from finetune_operator.runtime.kinds import PODS, SECRETS
from finetune_operator.runtime.lease import NotLeadingError
from finetune_operator.runtime.workers import TransientError


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (400, RefusedError),
        (403, RefusedError),
        (422, RefusedError),
        (404, NotFoundError),
        (409, ConflictError),
        (401, UnavailableError),
        (429, UnavailableError),
        (500, UnavailableError),
        (503, UnavailableError),
    ],
)
async def test_an_answer_is_an_error_of_its_kind(
    server: ApiServer, client: Client, code: int, error: type[ApiError]
) -> None:
    server.answer("GET", "/x", status(code, "Because", "of this"))
    with pytest.raises(error) as raised:
        await client.get("/x")
    assert (raised.value.status, raised.value.reason, raised.value.message) == (code, "Because", "of this")


@pytest.mark.parametrize(
    "message",
    [
        'failed to create typed patch object (ns/a; batch/v1, Kind=Job): .spec.template.spec.volumes[name="d"].x: no',
        "failed to convert new object (ns/a; batch/v1, Kind=Job) to proper version: quantities must match",
    ],
)
async def test_a_manifest_that_does_not_fit_its_kind_is_refused(
    server: ApiServer, client: Client, message: str
) -> None:
    server.answer("GET", "/x", status(500, "", message))
    with pytest.raises(RefusedError, match="422 Invalid") as raised:
        await client.get("/x")
    assert raised.value.message == message


async def test_what_may_pass_is_tried_again_and_what_is_refused_is_not(server: ApiServer, client: Client) -> None:
    assert issubclass(UnavailableError, TransientError)
    assert not issubclass(RefusedError, TransientError)
    server.answer("GET", "/x", status(503))
    with pytest.raises(TransientError):
        await client.get("/x")
    assert len(server.asked) == 1, "the client itself does not retry"


async def test_an_api_server_out_of_reach_is_unavailable(server: ApiServer) -> None:
    counted: list[tuple[str, str]] = []
    gone = ApiServer(url="http://127.0.0.1:1")
    async with client_of(gone, counted=counted) as client:
        with pytest.raises(UnavailableError):
            await client.get("/x")
    assert counted == [("<error>", "GET")]


async def test_a_process_that_does_not_lead_reads_but_sends_no_write(server: ApiServer) -> None:
    def fence() -> None:
        raise NotLeadingError

    server.answer("GET", "/x", {})
    async with client_of(server, fence) as client:
        await client.get("/x")
        for write in (client.create, client.replace, client.apply, client.merge):
            with pytest.raises(NotLeadingError):
                await write("/x", {})
        with pytest.raises(NotLeadingError):
            await client.delete("/x", "uid", "Background")
    assert [asked.method for asked in server.asked] == ["GET"]


async def test_apply_is_server_side_with_our_name_and_force(server: ApiServer, client: Client) -> None:
    server.answer("PATCH", "/x", {})
    await client.apply("/x", {"a": 1})
    (asked,) = server.asked
    assert asked.query == {"fieldManager": "finetune-operator", "force": "true"}
    assert asked.headers["Content-Type"] == "application/apply-patch+yaml"
    assert asked.body == {"a": 1}


async def test_a_delete_is_of_one_uid(server: ApiServer, client: Client) -> None:
    server.answer("DELETE", "/x", {"kind": "Job"})
    await client.delete("/x", "uid-1", "Foreground")
    assert server.asked[0].body == {"propagationPolicy": "Foreground", "preconditions": {"uid": "uid-1"}}


async def test_lists_come_in_pages_with_the_kinds_selector(server: ApiServer, client: Client) -> None:
    first = {"items": [{"metadata": {"name": "a"}}], "metadata": {"resourceVersion": "7", "continue": "more"}}
    second = {"items": [{"metadata": {"name": "b"}}], "metadata": {"resourceVersion": "7"}}
    server.answer("GET", "/api/v1/pods", first, second)
    pages = [page async for page in client.pages(PODS, None)]
    assert [item["metadata"]["name"] for page in pages for item in page.items] == ["a", "b"]
    assert {page.version for page in pages} == {7}
    assert server.asked[0].query["labelSelector"] == "app.kubernetes.io/managed-by=finetune-operator"
    assert server.asked[1].query["continue"] == "more"


async def test_of_a_secret_only_metadata_is_asked_for(server: ApiServer, client: Client) -> None:
    root = "/api/v1/namespaces/team/secrets"
    server.answer("GET", f"{root}/there", {"kind": "PartialObjectMetadata"})
    server.answer("GET", f"{root}/denied", status(403, "Forbidden"))
    found = await presence(client, SECRETS, "team", {"there", "denied", "absent"})
    assert found == {"there": Presence.PRESENT, "denied": Presence.UNREADABLE, "absent": Presence.MISSING}
    assert all("as=PartialObjectMetadata" in asked.headers["Accept"] for asked in server.asked)
