from __future__ import annotations

import asyncio
import gzip
import ipaddress
import json
import resource

import aiohttp
import pytest
from tests.unit.cluster import hostile
from tests.unit.cluster.api_server import ApiServer, client_of, status
from tests.unit.cluster.asked_pods import GOOD, NOBODY, SAID, proxy
from tests.unit.cluster.hostile import Behaviour
from tests.unit.runtime.fake_time import FakeTime

from finetune_operator.cluster import progress as scraping
from finetune_operator.cluster.pods import PodAddress
from finetune_operator.cluster.progress import (
    NoProgressError,
    Outcome,
    Scraper,
    may_be_a_pods,
    pod_session,
)
from finetune_trainer.contract import Progress


async def ask(scraper: Scraper, behave: Behaviour) -> Progress:
    async with hostile.pod(behave) as pod:
        scraper.port = pod.port
        return await scraper.progress("team", pod.address)


async def test_of_a_pod_no_connection_and_no_cookie_is_kept_and_nothing_is_unpacked() -> None:
    async with pod_session() as kept:
        assert kept.connector is not None
        assert (kept.connector.force_close, kept.connector.limit) == (True, 32)
        assert isinstance(kept.cookie_jar, aiohttp.DummyCookieJar)
        assert not kept.auto_decompress
        assert not kept.trust_env


async def test_an_address_that_no_pod_has_is_named(scraper: Scraper) -> None:
    for ip, why in (("8.8.8.8", "8.8.8.8 is no address of a pod"), ("here", "its address is no IP address")):
        with pytest.raises(NoProgressError, match=f"^{why}$"):
            await scraper.progress("team", PodAddress("p", ip))


async def test_a_pod_is_asked_at_its_address(scraper: Scraper, server: ApiServer) -> None:
    assert (await ask(scraper, GOOD)).step == 7
    assert server.asked == []


async def test_a_report_over_several_segments_is_read_whole(scraper: Scraper) -> None:
    said = json.dumps({**SAID, "message": "x" * 20_000}).encode()
    assert (await ask(scraper, hostile.in_segments(said, 8))).step == 7


@pytest.mark.parametrize(
    ("behave", "outcome", "why"),
    [
        (hostile.silent, Outcome.TIMEOUT, "no answer in 1 s"),
        (hostile.trickle, Outcome.TIMEOUT, "no answer in 1 s"),
        (hostile.flood(300), Outcome.TOO_LARGE, "an answer of more than 65536 bytes"),
        (
            hostile.answer(b"", Content_Length="314572800"),
            Outcome.TOO_LARGE,
            "an answer of 314572800 bytes, which is over 65536",
        ),
        (hostile.answer(b"", "302 Found", Location="http://127.0.0.1:1/"), Outcome.REFUSED, "it answers 302"),
        (hostile.answer(b"", "500 Internal Server Error"), Outcome.REFUSED, "it answers 500"),
        (hostile.answer(b"not JSON"), Outcome.INVALID, "it is no Progress: ValidationError"),
        (hostile.answer(b"[" * 60_000), Outcome.INVALID, "it is no Progress: "),
        (
            hostile.answer(gzip.compress(b" " * hostile.MEGABYTE), Content_Encoding="gzip"),
            Outcome.INVALID,
            "it is no Progress: ",
        ),
        (hostile.headers_for_ever, Outcome.INVALID, "it does not speak HTTP: "),
    ],
)
async def test_a_hostile_pod_costs_little_time_and_is_not_asked_twice(
    scraper: Scraper, server: ApiServer, behave: Behaviour, outcome: Outcome, why: str
) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(NoProgressError) as raised:
            await ask(scraper, behave)
    assert raised.value.outcome is outcome
    assert str(raised.value).startswith(why)
    assert server.asked == []


async def test_of_a_large_body_little_is_read(scraper: Scraper) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with hostile.pod(hostile.flood(300)) as pod:
        scraper.port = pod.port
        with pytest.raises(NoProgressError):
            await scraper.progress("team", pod.address)
        assert pod.sent < 32 * hostile.MEGABYTE
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024, "KiB"


async def test_a_body_over_the_limit_is_refused_through_the_api_server_too(scraper: Scraper, server: ApiServer) -> None:
    server.answer("GET", proxy(scraper), {**SAID, "message": "x" * 300_000})
    with pytest.raises(NoProgressError) as raised:
        await scraper.progress("team", NOBODY)
    assert raised.value.outcome is Outcome.TOO_LARGE


async def test_a_pod_that_cannot_be_reached_is_asked_through_the_api_server(
    scraper: Scraper, server: ApiServer
) -> None:
    server.answer("GET", proxy(scraper), SAID)
    assert (await scraper.progress("team", NOBODY)).step == 7


async def test_a_pod_that_hangs_up_is_asked_through_the_api_server(scraper: Scraper, server: ApiServer) -> None:
    async with hostile.pod(hostile.hang_up) as pod:
        scraper.port = pod.port
        server.answer("GET", proxy(scraper), SAID)
        assert (await scraper.progress("team", pod.address)).step == 7


async def test_a_pod_that_nobody_reaches_is_unreachable(scraper: Scraper, server: ApiServer) -> None:
    server.answer("GET", proxy(scraper), status(503, "ServiceUnavailable", "connection refused"))
    with pytest.raises(NoProgressError, match=r"^through the API server: 503 ServiceUnavailable$") as raised:
        await scraper.progress("team", NOBODY)
    assert raised.value.outcome is Outcome.UNREACHABLE


async def test_an_unreachable_pod_changes_only_how_its_namespaces_pods_on_its_network_are_asked(
    scraper: Scraper, server: ApiServer
) -> None:
    server.answer("GET", proxy(scraper, "far"), SAID)
    scraper.may_ask = lambda _: True
    # Connecting to the broadcast address fails at once, and sends nothing.
    assert (await scraper.progress("team", PodAddress("far", "255.255.255.255"))).step == 7
    async with hostile.pod(GOOD) as pod:
        scraper.port = pod.port
        for namespace in ("team", "other"):
            assert (await scraper.progress(namespace, pod.address)).step == 7
        assert pod.asked == 2


async def test_a_pod_that_refuses_connections_is_asked_directly_the_next_time(
    scraper: Scraper, server: ApiServer
) -> None:
    server.answer("GET", proxy(scraper), SAID)
    await scraper.progress("team", NOBODY)
    async with hostile.pod(GOOD) as pod:
        scraper.port = pod.port
        await scraper.progress("team", pod.address)
        assert pod.asked == 1


async def test_a_pod_to_which_nothing_connects_leaves_time_to_ask_the_api_server_and_its_network_is_left_alone(
    scraper: Scraper, server: ApiServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scraping, "_CONNECT_SECONDS", 0.1)
    with hostile.unanswered_port() as scraper.port:
        server.answer("GET", proxy(scraper), SAID)
        assert (await scraper.progress("team", NOBODY)).step == 7
    async with hostile.pod(GOOD) as pod:
        scraper.port = pod.port
        server.answer("GET", proxy(scraper), SAID)
        await scraper.progress("team", pod.address)
        assert pod.asked == 0


async def test_a_pod_is_asked_at_an_address_of_the_sixth_version_too(scraper: Scraper, server: ApiServer) -> None:
    server.answer("GET", proxy(scraper), SAID)
    assert (await scraper.progress("team", PodAddress("p", "::1"))).step == 7, "nobody is there, and it was a URL"


@pytest.mark.parametrize(
    ("first", "near", "far"),
    [("10.0.0.1", "10.0.0.77", "10.0.1.1"), ("fd00::1", "fd00::77", "fd00:0:0:1::1")],
    ids=["IPv4", "IPv6"],
)
async def test_pods_of_an_unreachable_network_are_asked_directly_again_after_a_while(  # noqa: PLR0913, PLR0917 - drawn
    scraper: Scraper,
    server: ApiServer,
    time: FakeTime,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    near: str,
    far: str,
) -> None:
    scraper.may_ask = lambda _: True
    tried: list[str] = []

    async def no_route(self: Scraper, ip: object) -> bytes:
        tried.append(str(ip))
        raise scraping._ElsewhereError(lasting=True)  # noqa: SLF001 - no address is without a route on every machine

    monkeypatch.setattr(Scraper, "_direct", no_route)
    server.answer("GET", proxy(scraper), SAID)
    server.answer("GET", proxy(scraper, namespace="other"), SAID)
    for _ in range(2):
        await scraper.progress("team", PodAddress("p", first))
    await scraper.progress("team", PodAddress("p", near))
    assert tried == [first]
    await scraper.progress("team", PodAddress("p", far))
    await scraper.progress("other", PodAddress("p", first))
    assert tried == [first, far, first]
    time.advance(300)
    await scraper.progress("team", PodAddress("p", near))
    assert tried[-1] == near


async def test_a_redirect_through_the_api_server_is_not_followed(scraper: Scraper, server: ApiServer) -> None:
    server.redirects[proxy(scraper)] = "/api/v1/namespaces/other/secrets/db"
    with pytest.raises(NoProgressError):
        await scraper.progress("team", NOBODY)
    assert server.paths("GET") == [proxy(scraper)]


async def test_what_a_pod_has_packed_is_not_unpacked_through_the_api_server(
    scraper: Scraper, server: ApiServer
) -> None:
    server.texts[proxy(scraper)] = gzip.compress(b" " * hostile.MEGABYTE)
    server.extra_headers["Content-Encoding"] = "gzip"
    with pytest.raises(NoProgressError) as raised:
        await scraper.progress("team", NOBODY)
    assert raised.value.outcome is Outcome.INVALID


async def test_a_pods_cookie_does_not_go_along_with_later_requests(scraper: Scraper, server: ApiServer) -> None:
    server.url = server.url.replace("127.0.0.1", "localhost")  # cookies of plain addresses are not kept anyway
    server.cookies = True
    server.answer("GET", proxy(scraper), SAID)
    async with client_of(server) as scraper.client:
        for _ in range(2):
            await scraper.progress("team", NOBODY)
    assert all("Cookie" not in asked.headers for asked in server.asked)


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "169.254.169.254", "::ffff:169.254.169.254", "fe80::1",
        "0.0.0.0", "::",  # noqa: S104 - it is not bound to
        "224.0.0.1", "ff02::1", "255.255.255.255",
    ],
)  # fmt: skip
def test_an_address_that_no_pod_has_is_not_asked(ip: str) -> None:
    assert not may_be_a_pods(ipaddress.ip_address(ip))


@pytest.mark.parametrize("ip", ["10.244.1.7", "192.168.3.4", "100.64.0.9", "203.0.113.9", "fd00::7", "2001:db8::1"])
def test_an_address_that_a_pod_can_have_is_asked(ip: str) -> None:
    assert may_be_a_pods(ipaddress.ip_address(ip))


@pytest.mark.parametrize("ip", ["evil.example", "10.0.0.1@evil", "10.0.0.1/../x", "", "fd00::1%eth0", "1.2.3.4:80"])
async def test_an_address_that_is_none_is_refused_without_a_request(
    scraper: Scraper, server: ApiServer, ip: str
) -> None:
    scraper.may_ask = lambda _: True
    with pytest.raises(NoProgressError) as raised:
        await scraper.progress("team", PodAddress("p", ip))
    assert raised.value.outcome is Outcome.INVALID
    assert server.asked == []
