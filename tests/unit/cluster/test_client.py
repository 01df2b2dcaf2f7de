from __future__ import annotations

import asyncio
from datetime import UTC, datetime

import pytest
from kubernetes.aio.client import Configuration
from structlog.testing import capture_logs
from tests.unit.cluster import hostile
from tests.unit.cluster.api_server import ApiServer, client_of, status

from finetune_operator.cluster import discovery
from finetune_operator.cluster.client import (
    ApiError,
    Client,
    ConflictError,
    NotFoundError,
    RefusedError,
    TooLargeError,
    UnavailableError,
    connect,
)
from finetune_operator.cluster.leases import ClusterLease
from finetune_operator.cluster.presence import presence
from finetune_operator.cluster.read_job import Reader
from finetune_operator.plan.model.observed import Presence
from finetune_operator.runtime.kinds import FINETUNE_JOBS, PODS, SECRETS, BadNameError
from finetune_operator.runtime.lease import LeaseUnavailableError, NotLeadingError
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


async def test_every_request_carries_the_token_of_the_configuration(server: ApiServer) -> None:
    configuration = Configuration(host=server.url, api_key={"BearerToken": "secret"})
    configuration.api_key_prefix = {"BearerToken": "Bearer"}
    client = connect(configuration, lambda: None, lambda _code, _method: None)
    server.answer("GET", "/x", {})
    await client.get("/x")
    await client.close()
    assert server.asked[0].headers["Authorization"] == "Bearer secret"


async def test_every_write_says_who_writes_and_what_and_is_counted(server: ApiServer) -> None:
    counted: list[tuple[str, str]] = []
    async with client_of(server, counted=counted) as client:
        for method in ("POST", "PUT", "PATCH"):
            server.answer(method, "/x", {})
        for write in (client.create, client.replace, client.merge):
            await write("/x", {"a": 1})
    assert [asked.query for asked in server.asked] == [{"fieldManager": "finetune-operator"}] * 3
    assert [(asked.method, asked.headers["Content-Type"]) for asked in server.asked] == [
        ("POST", "application/json"),
        ("PUT", "application/json"),
        ("PATCH", "application/merge-patch+json"),
    ]
    told = {
        tuple(asked.headers[name] for name in ("Accept", "Accept-Encoding", "User-Agent")) for asked in server.asked
    }
    assert told == {("application/json", "identity", "finetune-operator")}
    assert counted == [("200", "POST"), ("200", "PUT"), ("200", "PATCH")]


async def test_a_page_of_one_object_that_is_too_large_is_given_up(server: ApiServer, client: Client) -> None:
    huge = {"items": [{"metadata": {"name": "x" * 9_000_000}}], "metadata": {"resourceVersion": "7"}}
    server.answer("GET", "/api/v1/pods", huge)
    with pytest.raises(UnavailableError, match="0 TooLarge: an answer of "):
        _ = [page async for page in client.pages(PODS, None)]
    assert [asked.query["limit"] for asked in server.asked] == ["100", "12", "1"]


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
    assert [asked.query.get("continue") for asked in server.asked] == [None, "more"]


async def test_of_a_secret_only_metadata_is_asked_for(server: ApiServer, client: Client) -> None:
    root = "/api/v1/namespaces/team/secrets"
    server.answer("GET", f"{root}/there", {"kind": "PartialObjectMetadata"})
    server.answer("GET", f"{root}/denied", status(403, "Forbidden"))
    found = await presence(client, SECRETS, "team", {"there", "denied", "absent"})
    assert found == {"there": Presence.PRESENT, "denied": Presence.UNREADABLE, "absent": Presence.MISSING}
    assert all("as=PartialObjectMetadata" in asked.headers["Accept"] for asked in server.asked)


@pytest.mark.parametrize(
    ("said", "seconds"), [("7", 7.0), ("86400", 60.0), ("-1", 0.0), ("soon", 0.0), ("1e9", 0.0), ("²", 0.0), ("", 0.0)]
)
async def test_an_overloaded_api_server_says_how_long_to_leave_it_alone(
    server: ApiServer, client: Client, said: str, seconds: float
) -> None:
    server.answer("GET", "/x", status(429, "TooManyRequests"))
    server.extra_headers["Retry-After"] = said
    with pytest.raises(UnavailableError) as raised:
        await client.get("/x")
    assert raised.value.retry_after == seconds


async def test_an_answer_that_is_no_json_is_tried_again(server: ApiServer, client: Client) -> None:
    server.texts["/x"] = b"<html>a load balancer</html>"
    with pytest.raises(TransientError, match="0 Unreadable: an answer that is no JSON: "):
        await client.get("/x")


async def test_an_api_server_that_takes_a_request_and_says_nothing_is_given_up(
    server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("finetune_operator.cluster.client.READ_SECONDS", 0.2)
    monkeypatch.setattr("finetune_operator.cluster.client.LIST_SECONDS", 0.2)
    server.meeting = {("GET", "/x"), ("PUT", "/x"), ("GET", "/api/v1/pods"), ("GET", "/what-never-comes")}
    counted: list[tuple[str, str]] = []
    client = connect(Configuration(host=server.url), lambda: None, lambda *one: counted.append(one), write_seconds=0.2)
    lists = anext(client.pages(PODS, None))
    for asking in (client.raw("/x", (), 0.2, None), client.get("/x"), lists, client.replace("/x", {})):
        async with asyncio.timeout(5):
            with pytest.raises(UnavailableError, match="0 TimeoutError"):
                await asking
    await client.close()
    assert counted == [*[("<error>", "GET")] * 3, ("<error>", "PUT")]


async def test_an_error_without_reason_or_message_has_none(server: ApiServer, client: Client) -> None:
    server.answer("GET", "/x", {"kind": "Status", "code": 503})
    with pytest.raises(UnavailableError) as raised:
        await client.get("/x")
    assert (raised.value.reason, raised.value.message) == ("", "")


async def test_an_error_that_is_no_status_is_told_by_its_first_words(server: ApiServer, client: Client) -> None:
    server.texts["/x"], server.text_code = b"no \xff upstream" + b"." * 1000, 503
    with pytest.raises(UnavailableError) as raised:
        await client.get("/x")
    assert (raised.value.reason, raised.value.message) == ("", "no \ufffd upstream" + "." * 499)


@pytest.mark.parametrize("told", [True, False], ids=["length told", "length not told"])
async def test_a_body_may_be_as_large_as_was_asked_for_and_no_larger(
    told: bool,  # noqa: FBT001 - drawn
) -> None:
    async def behave(writer: asyncio.StreamWriter) -> None:
        length = b"Content-Length: 1000\r\n" if told else b""
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + length + b"\r\n" + b"x" * 1000)
        await writer.drain()

    async with hostile.pod(behave) as pod, client_of(ApiServer(f"http://127.0.0.1:{pod.port}")) as client:
        assert len(await client.raw("/x", (), 5, 1000)) == 1000
        with pytest.raises(TooLargeError, match="999"):
            await client.raw("/x", (), 5, 999)


async def test_a_redirect_is_not_followed(server: ApiServer, client: Client) -> None:
    server.redirects["/x"] = "/y"
    with pytest.raises(UnavailableError, match="redirect"):
        await client.get("/x")
    assert server.paths("GET") == ["/x"]


async def test_of_a_page_that_is_too_large_smaller_ones_are_asked_for(server: ApiServer, client: Client) -> None:
    huge = {"items": [{"metadata": {"name": "x" * 9_000_000}}], "metadata": {"resourceVersion": "7"}}
    small = {"items": [{"metadata": {"name": "a"}}], "metadata": {"resourceVersion": "7"}}
    server.answer("GET", "/api/v1/pods", huge, {**small, "metadata": {"resourceVersion": "7", "continue": "c"}}, small)
    pages = [page async for page in client.pages(PODS, None)]
    assert len(pages) == 2
    assert [asked.query["limit"] for asked in server.asked] == ["100", "12", "24"]


@pytest.mark.parametrize(
    "name",
    [
        "../../other/secrets/db", "..", ".", "x?watch=true", "x/status", "x#y", "x%2F..%2Fy", "a b", "x\n", "", "XXX",
        "a..b", "-a", "a" * 254,
    ],
)  # fmt: skip
async def test_a_name_that_would_make_another_request_is_refused_before_it(
    server: ApiServer, client: Client, name: str
) -> None:
    with pytest.raises(BadNameError):
        SECRETS.path("team", name)
    with pytest.raises(BadNameError):
        SECRETS.path(name or "..", "db")
    assert await presence(client, SECRETS, "team", {name}) == {name: Presence.MISSING}
    assert await Reader(client, "team").job(name) is None
    assert server.asked == []


def test_a_name_that_an_object_can_have_is_a_path_of_its_own() -> None:
    assert SECRETS.path("team", "db.example-1") == "/api/v1/namespaces/team/secrets/db.example-1"


async def test_a_lease_that_cannot_be_read_as_one_is_unavailable(server: ApiServer, client: Client) -> None:
    lease = ClusterLease(client, "team", "lease", lambda: datetime.now(UTC))
    server.answer(
        "GET", "/apis/coordination.k8s.io/v1/namespaces/team/leases/lease", {"spec": {"leaseDurationSeconds": []}}
    )
    with pytest.raises(LeaseUnavailableError):
        await lease.read()


@pytest.mark.parametrize("answer", [status(403, "Forbidden"), status(500), {"resources": None}, {"hello": "world"}])
async def test_discovery_waits_whatever_the_api_server_answers(
    server: ApiServer, client: Client, answer: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_PAUSE_SECONDS", 0.001)
    kinds = [{"name": name} for name in ("finetunejobs", "finetunetemplates", "clusterfinetunetemplates")]
    server.answer("GET", FINETUNE_JOBS.root, answer, answer, {"resources": kinds})
    with capture_logs() as logs:
        await discovery.wait_for_kinds(client)
    assert len(server.asked) == 3
    assert [line["event"] for line in logs] == ["waiting"], "told once"
