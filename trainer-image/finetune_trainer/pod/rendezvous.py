"""The pods of a gang meet here before torch's own rendezvous begins.

Torch gives up on a pod that is not there yet. A pod that has no node, or whose image is still pulled, is nobody's
fault: so everybody waits for rank 0, rank 0 waits for everybody, and nobody's patience ends. Only when all are there
does torch begin, on the same port.

A pod sends one line of JSON, its `Hello`. Rank 0 answers `wait`, then `ready?` (to be answered with the same) and
`go`; or why the pod does not belong here.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune_trainer.contract import RENDEZVOUS_PORT, Env, RunConfig
from finetune_trainer.errors import Internal
from finetune_trainer.pod.report import Reporter
from finetune_trainer.pod.runconfig import node_rank

_WAIT: Final = b"wait\n"
_READY: Final = b"ready?\n"
_GO: Final = b"go\n"
_LINE_BYTES: Final = 512
"""The longest line that either side reads."""
_STRANGERS: Final = 64
"""Connections, besides one for each pod, that may be open before they have said who they are."""
_SILENCE_SECONDS: Final = 10
"""How long a connection may say nothing when it is its turn."""
_RETRY_SECONDS: Final = 0.5
_SIGN_OF_LIFE_SECONDS: Final = 30
_MOST_NAMED: Final = 8
_NO_NAME: Final = "its name is not in DNS yet"
_PORT_ADVICE: Final = "let no other process on the node use this port, or run the pods without hostNetwork"
_NOT_OURS: Final = {errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT}


class Hello(BaseModel):
    """Who calls. A pod of another attempt of the job is no member of this gang."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    uid: str
    attempt: int
    nodes: int
    rank: int = Field(ge=0)

    def refusal(self, caller: Hello) -> str | None:
        """Why a caller does not belong to rank 0's gang, in words for the caller's log; None when it does."""
        if caller.uid != self.uid:
            return "rank 0 is of another job"
        if caller.attempt != self.attempt:
            return f"rank 0 is of attempt {self.attempt}, this pod is of attempt {caller.attempt}"
        if caller.nodes != self.nodes or not 0 < caller.rank < self.nodes:
            return f"rank 0 expects ranks 1 to {self.nodes - 1}"
        return None


@dataclass(frozen=True)
class Place:
    """Where this pod's gang meets, and as whom this pod comes."""

    host: str
    port: int
    hello: Hello

    @classmethod
    def of(cls, config: RunConfig, environ: Mapping[str, str]) -> Self:
        hello = Hello(uid=config.job.uid, attempt=config.attempt, nodes=config.topology.nodes, rank=node_rank(environ))
        port = int(environ.get(Env.MASTER_PORT) or RENDEZVOUS_PORT)
        return cls(environ.get(Env.MASTER_ADDR) or "127.0.0.1", port, hello)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def meet(place: Place, reporter: Reporter) -> None:
    """Return once every pod of the gang is there. Raises Internal when another process holds rank 0's port."""
    if place.hello.nodes == 1:
        return
    if place.hello.rank == 0:
        asyncio.run(_Host(place, reporter).gather())
    else:
        _join(place, reporter.notify)
    reporter.notify("all pods are there: joining the other ranks")


def _join(place: Place, notify: Callable[[str], None]) -> None:
    """Call on rank 0 until it lets this pod in and everybody is there."""
    said = None
    while (trouble := _call(place, notify)) is not None:
        if trouble != said:
            notify(f"waiting for rank 0 at {place}: {trouble}")
        said = trouble
        time.sleep(_RETRY_SECONDS)


def _call(place: Place, notify: Callable[[str], None]) -> str | None:
    """One call: None when rank 0 has said `go`, else why this pod is still waiting."""
    try:
        with socket.create_connection((place.host, place.port), timeout=_SILENCE_SECONDS) as link:
            _notice_death(link)
            link.settimeout(None)
            link.sendall(place.hello.model_dump_json().encode() + b"\n")
            return _listen_to(link, notify)
    except socket.gaierror:
        return _NO_NAME
    except OSError as error:
        return f"it does not answer ({error.strerror or error})"


def _listen_to(link: socket.socket, notify: Callable[[str], None]) -> str | None:
    with link.makefile("rb") as words:
        while (line := words.readline(_LINE_BYTES)).endswith(b"\n"):
            if line == _GO:
                return None
            if line == _WAIT:
                notify("rank 0 is there: waiting for the other pods")
            elif line == _READY:
                link.sendall(_READY)
            else:
                return line.decode(errors="replace").strip()
    return "it has hung up"


def _notice_death(link: socket.socket) -> None:
    """Let the kernel end a connection whose other side is gone without a word, some 25 s after."""
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):  # Linux has all three
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


@dataclass(eq=False)
class _Member:
    """The connection of one pod; it is there as long as this is open."""

    writer: asyncio.StreamWriter
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    async def is_ready(self) -> bool:
        """Ask, and hang up on one that does not answer."""
        self.ready.clear()
        with suppress(OSError, TimeoutError):
            self.writer.write(_READY)
            await asyncio.wait_for(self.ready.wait(), _SILENCE_SECONDS)
        if not self.ready.is_set():
            self.writer.close()
        return self.ready.is_set() and not self.gone.is_set()


class _Host:
    """Rank 0: takes the other pods in."""

    def __init__(self, place: Place, reporter: Reporter) -> None:
        self._place = place
        self._reporter = reporter
        self._members: dict[int, _Member] = {}
        self._changed = asyncio.Event()
        self._strangers = 0

    async def gather(self) -> None:
        """Wait until every pod is there at the same time, and tell them all."""
        listeners = await self._listeners()
        servers = [await asyncio.start_server(self._welcome, sock=one, limit=_LINE_BYTES) for one in listeners]
        while not await self._all_ready():
            await self._news()
        for member in self._members.values():
            member.writer.write(_GO)
        # The others hang up first, which leaves the port free for torch.
        hung_up = [asyncio.create_task(member.gone.wait()) for member in self._members.values()]
        await asyncio.wait(hung_up, timeout=_SILENCE_SECONDS)
        for server in servers:
            server.close()

    async def _listeners(self) -> list[socket.socket]:
        """Sockets on this pod's own addresses, once its name leads to them."""
        said = None
        while isinstance(found := await self._open(), str):
            if found != said:
                self._reporter.notify(f"waiting to open {self._place}: {found}")
            said = found
            await asyncio.sleep(_RETRY_SECONDS)
        return found

    async def _open(self) -> list[socket.socket] | str:
        """The sockets, or why there are none yet."""
        place, loop = self._place, asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
        except socket.gaierror:
            return _NO_NAME
        try:
            return _bind(found) or "its name still leads to another pod"
        except OSError as error:
            raise Internal(f"rank 0 cannot listen on {place}: {error.strerror}", advice=_PORT_ADVICE) from error

    async def _all_ready(self) -> bool:
        """Whether every pod is there and answers: a connection may outlive its pod for a while."""
        missing = sorted(set(range(1, self._place.hello.nodes)) - self._members.keys())
        if missing:
            message = f"waiting for {len(missing)} of {self._place.hello.nodes} pods ({_ranks(missing)})"
            if self._reporter.progress.message != message:
                self._reporter.notify(message)
            return False
        members = list(self._members.values())
        answers = await asyncio.gather(*(member.is_ready() for member in members))
        return all(answers) and members == list(self._members.values())

    async def _news(self) -> None:
        """Until a pod comes or goes; a sign of life now and then, so that nobody takes patience for death."""
        while not self._changed.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), _SIGN_OF_LIFE_SECONDS)
            self._reporter.update()
        self._changed.clear()

    async def _welcome(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, from its hello to its end."""
        try:
            if (caller := await self._hello(reader)) is None:
                return
            if (refusal := self._place.hello.refusal(caller)) is not None:
                writer.write(refusal.encode() + b"\n")
                return
            await self._take_in(caller.rank, reader, writer)
        finally:
            with suppress(OSError):
                writer.close()

    async def _hello(self, reader: asyncio.StreamReader) -> Hello | None:
        """Who calls; None for somebody who speaks otherwise, too long or not at all."""
        if self._strangers >= _STRANGERS + self._place.hello.nodes:
            return None
        self._strangers += 1
        try:
            return Hello.model_validate_json(await asyncio.wait_for(reader.readline(), _SILENCE_SECONDS))
        except (OSError, ValueError, ValidationError, TimeoutError):
            return None
        finally:
            self._strangers -= 1

    async def _take_in(self, rank: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Count a pod in until it hangs up. One that comes again, as another pod or not, replaces itself."""
        _notice_death(writer.get_extra_info("socket"))
        member = _Member(writer)
        if (earlier := self._members.pop(rank, None)) is not None:
            earlier.writer.close()
        self._members[rank] = member
        self._changed.set()
        writer.write(_WAIT)
        with suppress(OSError, ValueError):
            while await reader.readline() == _READY:
                member.ready.set()
        member.gone.set()
        if self._members.get(rank) is member:
            del self._members[rank]
            self._changed.set()


def _bind(found: Iterable[Any]) -> list[socket.socket]:
    """Sockets on those of the addresses (of getaddrinfo) that are this pod's. Raises OSError when one is taken."""
    listeners = []
    for family, address in sorted({(family, address) for family, _, _, _, address in found}):
        with ExitStack() as stack:
            try:
                listener = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                listener.bind(address)
            except OSError as error:
                if error.errno in _NOT_OURS:
                    continue
                raise
            stack.pop_all()
            listeners.append(listener)
    return listeners


def _ranks(missing: list[int]) -> str:
    named = ", ".join(str(rank) for rank in missing[:_MOST_NAMED])
    return f"rank{'s' if len(missing) > 1 else ''} {named}{', ...' if len(missing) > _MOST_NAMED else ''}"
