"""An API server that answers what a test tells it to, over real HTTP, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from aiohttp import web
from kubernetes.aio.client import Configuration

from finetune_operator.cluster.client import Client, connect

Json = dict[str, Any]


class Asked(NamedTuple):
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any


def status(code: int, reason: str = "", message: str = "") -> Json:
    """A Status object, as the API server refuses with."""
    return {"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


@dataclass
class ApiServer:
    """Answers by method and path; what it was not told of is 404. Collections in `kept` it keeps as the real one does:
    what is posted has a name that is taken from then on, can be read, and is changed by merge patches.
    """

    url: str = ""
    answers: dict[tuple[str, str], list[Json]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    kept: dict[str, dict[str, Json]] = field(default_factory=dict)
    """Objects by name, by the path of their collection."""
    meeting: set[tuple[str, str]] = field(default_factory=set)
    """Method and path of requests that are answered only once all of them are here."""
    redirects: dict[str, str] = field(default_factory=dict)
    """Paths that are answered with a redirect, and where it leads."""
    texts: dict[str, bytes] = field(default_factory=dict)
    """Paths that are answered with something else than JSON."""
    text_code: int = 200
    cookies: bool = False
    """Whether every answer sets a cookie."""
    extra_headers: dict[str, str] = field(default_factory=dict)
    _met: asyncio.Event = field(default_factory=asyncio.Event)

    def answer(self, method: str, path: str, *bodies: Json) -> None:
        """Answers in turn with these; the last one stays."""
        self.answers[method, path] = list(bodies)

    def paths(self, method: str) -> list[str]:
        return [asked.path for asked in self.asked if asked.method == method]

    async def handle(self, request: web.Request) -> web.Response:
        answer = await self._answer(request)
        answer.headers.update(self.extra_headers)
        if self.cookies:
            answer.set_cookie("session", "x" * 100)
        return answer

    async def _answer(self, request: web.Request) -> web.Response:
        text = await request.text()
        headers = dict(request.headers)
        body = json.loads(text) if text else None
        self.asked.append(Asked(request.method, request.path, dict(request.query), headers, body))
        await self._meet(request.method, request.path)
        if request.path in self.redirects:
            return web.Response(status=302, headers={"Location": self.redirects[request.path]})
        if request.path in self.texts:
            return web.Response(status=self.text_code, body=self.texts[request.path])
        found = self._told(request.method, request.path)
        if found is None:
            found = self._keep(request.method, request.path, body)
        code = found["code"] if found.get("kind") == "Status" else 200
        return web.json_response(found, status=code)

    def _told(self, method: str, path: str) -> Json | None:
        bodies = self.answers.get((method, path))
        if not bodies:
            return None
        return bodies.pop(0) if len(bodies) > 1 else bodies[0]

    def _keep(self, method: str, path: str, body: Any) -> Json:
        root, _, name = path.rpartition("/")
        if method == "POST" and path in self.kept:
            name = body["metadata"]["name"]
            if name in self.kept[path]:
                return status(409, "AlreadyExists", f"{name} exists already")
            self.kept[path][name] = body
            return dict(body)
        objects = self.kept.get(root, {})
        if name not in objects:
            return status(404, "NotFound", f"{path} not found")
        if method == "PATCH":
            objects[name] = _merged(objects[name], body)
        return objects.pop(name) if method == "DELETE" else objects[name]

    async def _meet(self, method: str, path: str) -> None:
        if (method, path) in self.meeting:
            if self.meeting <= {(asked.method, asked.path) for asked in self.asked}:
                self._met.set()
            await asyncio.wait_for(self._met.wait(), timeout=10)


def _merged(target: Json, patch: Json) -> Json:
    """RFC 7386."""
    both = target | {name: value for name, value in patch.items() if value is not None}
    for name, value in patch.items():
        if value is None:
            both.pop(name, None)
        elif isinstance(value, dict) and isinstance(target.get(name), dict):
            both[name] = _merged(target[name], value)
    return both


@asynccontextmanager
async def serving() -> AsyncIterator[ApiServer]:
    server = ApiServer()
    application = web.Application()
    application.router.add_route("*", "/{anything:.*}", server.handle)
    runner = web.AppRunner(application, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield server
    await runner.cleanup()


@asynccontextmanager
async def client_of(
    server: ApiServer, fence: Callable[[], None] = lambda: None, counted: list[tuple[str, str]] | None = None
) -> AsyncIterator[Client]:
    configuration = Configuration(host=server.url)
    configuration.client_session_kwargs = {"trust_env": False}
    log = [] if counted is None else counted
    client = connect(configuration, fence, lambda code, method: log.append((code, method)))
    yield client
    await client.close()
