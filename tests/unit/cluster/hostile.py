"""Pods that mean no good: they answer over real sockets, on loopback only."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

from finetune_operator.cluster.pods import PodAddress

Behaviour = Callable[[asyncio.StreamWriter], Awaitable[None]]
MEGABYTE = 1024 * 1024


@dataclass
class HostilePod:
    """What answers at an address, how often it was asked, and how much it could send."""

    address: PodAddress
    port: int
    asked: int = 0
    sent: int = 0
    asked_for: list[bytes] = field(default_factory=list)


def answer(body: bytes, status: str = "200 OK", **headers: str) -> Behaviour:
    """Answers at once, and closes."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        said = {"Content_Length": str(len(body)), **headers}
        head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in said.items())
        writer.write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + body)
        await writer.drain()

    return behave


def in_segments(body: bytes, pieces: int) -> Behaviour:
    """Answers piece by piece, each in a segment of its own."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode())
        size = len(body) // pieces + 1
        for start in range(0, len(body), size):
            writer.write(body[start : start + size])
            await writer.drain()
            await asyncio.sleep(0.01)

    return behave


async def silent(_: asyncio.StreamWriter) -> None:
    """Takes the connection, and says nothing for ever."""
    await asyncio.Event().wait()


async def trickle(writer: asyncio.StreamWriter) -> None:
    """Sends a byte now and then, so that no single read takes long."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.02)


async def headers_for_ever(writer: asyncio.StreamWriter) -> None:
    """Never comes to the body."""
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-More: " + b"x" * 4000 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0)


def flood(megabytes: int) -> Behaviour:
    """Sends that much without saying so before."""

    async def behave(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
        for _ in range(megabytes):
            writer.write(b"x" * MEGABYTE)
            await writer.drain()

    return behave


async def hang_up(_: asyncio.StreamWriter) -> None:
    """Closes the connection without a word."""


@asynccontextmanager
async def pod(behave: Behaviour, name: str = "p") -> AsyncIterator[HostilePod]:
    """A pod on 127.0.0.1 that behaves like this."""
    found = HostilePod(PodAddress(name, "127.0.0.1"), 0)
    talks: set[asyncio.Task[None]] = set()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        talks.add(task)
        found.asked += 1
        write = writer.write

        def counted(data: bytes | bytearray | memoryview) -> None:
            found.sent += len(data)
            write(data)

        writer.write = counted  # type: ignore[method-assign]
        try:
            found.asked_for.append(await reader.readuntil(b"\r\n\r\n"))
            await behave(writer)
        except (OSError, asyncio.CancelledError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
        for task in talks:
            task.cancel()
        await asyncio.gather(*talks, return_exceptions=True)


@contextmanager
def unanswered_port() -> Iterator[int]:
    """A port of 127.0.0.1 at which connecting takes for ever: as many wait there already as are let in."""
    with socket.socket() as full, ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            client = waiting.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(full.getsockname())
        yield full.getsockname()[1]


def closed_port() -> int:
    """A port of 127.0.0.1 at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
