"""The operator's own endpoints: /metrics, /healthz (is it alive) and /readyz (does it know the cluster)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

_Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]
Check = Callable[[], str | None]
"""Says what is wrong, or nothing."""


class Endpoints:
    """Serves metrics on one port and health on another; a port of 0 is not served."""

    def __init__(self, render: Callable[[], bytes], alive: Check, ready: Check, remark: Check = lambda: None) -> None:
        """`remark` says what is not as it should be although the process works: /readyz tells it and stays ready."""
        self._render = render
        self._remark = remark
        self._alive = alive
        self._ready = ready
        self._runners: list[web.AppRunner] = []

    async def start(self, metrics_port: int, health_port: int) -> None:
        if metrics_port:
            await self._serve(metrics_port, {"/metrics": self._metrics})
        if health_port:
            await self._serve(
                health_port, {"/healthz": _checked(self._alive), "/readyz": _checked(self._ready, self._remark)}
            )

    async def stop(self) -> None:
        for runner in self._runners:
            await runner.cleanup()

    async def _serve(self, port: int, routes: dict[str, _Answer]) -> None:
        application = web.Application()
        for path, answer in routes.items():
            application.router.add_get(path, answer)
        runner = web.AppRunner(application, access_log=None)
        self._runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, port=port).start()

    async def _metrics(self, _: web.Request) -> web.Response:
        return web.Response(body=self._render(), headers={"Content-Type": CONTENT_TYPE_LATEST})


def _checked(check: Check, remark: Check = lambda: None) -> _Answer:
    async def answer(_: web.Request) -> web.Response:
        wrong = check()
        return web.Response(status=503 if wrong else 200, text=f"{wrong or remark() or 'ok'}\n")

    return answer
