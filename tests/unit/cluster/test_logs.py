from __future__ import annotations

import pytest
from tests.unit.cluster.api_server import ApiServer, status

from finetune_operator.cluster.client import Client, UnavailableError
from finetune_operator.cluster.logs import PodLog

PATH = "/api/v1/namespaces/team/pods/p/log"
FIRST, SECOND, THIRD = (f"2026-03-01T12:00:0{second}.5Z" for second in (1, 2, 3))


async def test_a_log_is_read_on_from_the_last_line_and_no_line_comes_twice(server: ApiServer, client: Client) -> None:
    log = PodLog(client, "team", "p")
    server.texts[PATH] = f"{FIRST} step 1: loss 2\n{SECOND} step 2\n".encode()
    assert await log.more() == ["step 1: loss 2", "step 2"]
    assert server.asked[-1].query == {"container": "trainer", "timestamps": "true"}
    server.texts[PATH] = f"{SECOND} step 2\n{THIRD} \xe4 step 3\n".encode("latin-1")
    assert await log.more() == ["\N{REPLACEMENT CHARACTER} step 3"]
    assert server.asked[-1].query == {
        "container": "trainer",
        "timestamps": "true",
        "sinceTime": "2026-03-01T12:00:02Z",
    }
    assert await log.more() == []
    assert server.asked[-1].query["sinceTime"] == "2026-03-01T12:00:03Z"
    server.texts[PATH] = b"2026-03-01T12:00:04Z step 4\n"
    assert await log.more() == ["step 4"]
    assert await log.more() == []
    assert server.asked[-1].query["sinceTime"] == "2026-03-01T12:00:04Z"


@pytest.mark.parametrize("code", [400, 404])
async def test_a_container_that_has_not_started_and_a_pod_that_is_gone_have_no_lines(
    server: ApiServer, client: Client, code: int
) -> None:
    server.answer("GET", PATH, status(code))
    assert await PodLog(client, "team", "p").more() == []


async def test_a_log_that_cannot_be_had_is_an_error(server: ApiServer, client: Client) -> None:
    server.answer("GET", PATH, status(503))
    with pytest.raises(UnavailableError):
        await PodLog(client, "team", "p").more()
