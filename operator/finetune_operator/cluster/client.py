"""Requests to the API server: JSON in, JSON out, errors as types, writes only while this process leads."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
import pydantic_core
from kubernetes.aio.client import ApiClient

from finetune_operator.plan.model.names import FIELD_MANAGER
from finetune_operator.runtime.deep_json import from_json
from finetune_operator.runtime.kinds import Kind
from finetune_operator.runtime.resync import Page
from finetune_operator.runtime.workers import TransientError

JSON: Final = "application/json"
APPLY_PATCH: Final = "application/apply-patch+yaml"
MERGE_PATCH: Final = "application/merge-patch+json"
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"

WRITE_SECONDS: Final = 4.0
READ_SECONDS: Final = 10.0
LIST_SECONDS: Final = 60.0
_PAGE: Final = 100
"""Objects. A parsed page takes some 100 KB an object, and what the first list takes is never given back."""
_LARGEST_ANSWER: Final = 8 * 1024 * 1024
"""Bytes. No object is larger (etcd takes 1.5 MiB), and a page that is comes again in smaller pages."""
_LONGEST_WAIT: Final = 60.0
_REFUSALS: Final = frozenset({400, 403, 422})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MISSHAPEN: Final = ("failed to create typed patch object", "failed to convert new object")
"""How a server-side apply says 500 of a manifest with a field or value that its kind does not have."""

Query = Sequence[tuple[str, str]]


class ApiError(Exception):
    """The API server answered with an error."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class RefusedError(ApiError):
    """The request will be refused as long as nothing else changes: invalid, forbidden, over quota."""


class NotFoundError(ApiError):
    """The object, or its namespace, does not exist."""


class ConflictError(ApiError):
    """The object exists already, or has changed since it was read."""


class UnavailableError(ApiError, TransientError):
    """The API server is overloaded, starting, out of reach, or refused the credentials for now."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float = 0.0) -> None:
        super().__init__(status, reason, message)
        self.retry_after = retry_after
        """Seconds for which the API server asked to be left alone."""


class TooLargeError(UnavailableError):
    """The answer is larger than was asked for; no more of it than that was taken into memory."""


class Client:
    """The API server. `fence` is called before every write and raises when this process may not write.

    A write takes no longer than `write_seconds`: less than the lease leaves between the last write and a takeover.
    """

    def __init__(
        self,
        api: ApiClient,
        fence: Callable[[], None],
        count: Callable[[str, str], None],
        write_seconds: float = WRITE_SECONDS,
    ) -> None:
        self._api = api
        self._write_seconds = write_seconds
        self._fence = fence
        self._count = count
        api.user_agent = FIELD_MANAGER
        # Through the API server's proxy it is a pod that answers: it may redirect to nowhere, set no cookie that
        # would go along with later requests, and make nothing large out of something small.
        api.configuration.client_session_kwargs = {
            **(api.configuration.client_session_kwargs or {}),
            "middlewares": (_without_redirects,),
            "cookie_jar": aiohttp.DummyCookieJar(),
            "auto_decompress": False,
        }

    async def get(self, path: str, query: Query = (), accept: str = JSON) -> Any:
        return await self._json("GET", path, query, timeout=READ_SECONDS, accept=accept)

    async def create(self, path: str, body: Mapping[str, Any], *, strict: bool = False) -> Any:
        """Makes an object. `strict` refuses fields that its kind does not have, which else are dropped in silence."""
        validation = [("fieldValidation", "Strict")] if strict else []
        return await self._write("POST", path, [("fieldManager", FIELD_MANAGER), *validation], body, JSON)

    async def replace(self, path: str, body: Mapping[str, Any]) -> Any:
        """Writes an object as a whole, if its resourceVersion is the newest."""
        return await self._write("PUT", path, [("fieldManager", FIELD_MANAGER)], body, JSON)

    async def apply(self, path: str, body: Mapping[str, Any]) -> Any:
        """Server-side apply: the fields in `body` are ours, whoever else had set them."""
        query = [("fieldManager", FIELD_MANAGER), ("force", "true")]
        return await self._write("PATCH", path, query, body, APPLY_PATCH)

    async def merge(self, path: str, body: Mapping[str, Any]) -> Any:
        return await self._write("PATCH", path, [("fieldManager", FIELD_MANAGER)], body, MERGE_PATCH)

    async def delete(self, path: str, uid: str, propagation: str) -> Any:
        """Deletes the object with this uid, and no other that may have its name by now."""
        body = {"propagationPolicy": propagation, "preconditions": {"uid": uid}}
        return await self._write("DELETE", path, (), body, JSON)

    async def pages(self, kind: Kind, namespace: str | None) -> AsyncIterator[Page]:
        """All objects of a kind, a page at a time; where objects are large, in pages of fewer."""
        selector = [("labelSelector", kind.selector)] if kind.selector else []
        follow, size = "", _PAGE
        while True:
            query = [("limit", str(size)), *selector, *([("continue", follow)] if follow else [])]
            try:
                found = await self._json("GET", kind.path(namespace), query, timeout=LIST_SECONDS, accept=JSON)
            except TooLargeError:
                if size == 1:
                    raise
                size = max(1, size // 8)
                continue
            yield Page(tuple(found["items"]), int(found["metadata"]["resourceVersion"]))
            size = min(_PAGE, size * 2)
            follow = found["metadata"].get("continue", "")
            if not follow:
                return

    async def raw(self, path: str, query: Query, seconds: float, largest: int | None) -> bytes:
        """The body of an answer that is not the API server's own (a pod's, by its proxy). Raises TooLargeError."""
        return await self._send("GET", path, query, None, JSON, JSON, seconds, largest)

    async def close(self) -> None:
        await self._api.close()

    async def _write(self, method: str, path: str, query: Query, body: Mapping[str, Any], content: str) -> Any:
        self._fence()
        return _parsed(await self._send(method, path, query, body, content, JSON, self._write_seconds))

    async def _json(self, method: str, path: str, query: Query, *, timeout: float, accept: str) -> Any:  # noqa: ASYNC109 - given to the HTTP client
        return _parsed(await self._send(method, path, query, None, JSON, accept, timeout))

    async def _send(  # noqa: PLR0913, PLR0917 - the one place that knows everything of a request
        self,
        method: str,
        path: str,
        query: Query,
        body: Mapping[str, Any] | None,
        content: str,
        accept: str,
        seconds: float,
        largest: int | None = _LARGEST_ANSWER,
    ) -> bytes:
        # Compressed lists cost both sides more time than they save on a cluster's network.
        headers = {
            "Accept": accept,
            "Accept-Encoding": "identity",
            "Content-Type": content,
            **self._api.default_headers,
        }
        await self._api.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self._api.configuration.host + path + (f"?{urlencode(query)}" if query else "")
        try:
            answer = await self._api.call_api(
                method, url, headers, body, _request_timeout=aiohttp.ClientTimeout(total=seconds)
            )
            data = await bounded_body(answer.response, largest)
        except BodyTooLargeError as error:
            self._count("<error>", method)
            raise TooLargeError(0, "TooLarge", str(error)) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            self._count("<error>", method)
            raise UnavailableError(0, type(error).__name__, str(error) or f"no answer in {seconds:g} s") from error
        self._count(str(answer.status), method)
        if answer.status >= 300:  # noqa: PLR2004 - where HTTP's successes end
            raise _error(answer.status, data, _seconds(answer.headers.get("Retry-After")))
        return data


class BodyTooLargeError(Exception):
    """A body that is larger than was asked for."""


async def bounded_body(answer: aiohttp.ClientResponse, largest: int | None) -> bytes:
    """The whole body of an answer; of one over the limit no more than that is read. Raises BodyTooLargeError."""
    if largest is None:
        return await answer.read()
    if (answer.content_length or 0) > largest:
        answer.close()
        raise BodyTooLargeError(f"an answer of {answer.content_length} bytes, which is over {largest}")
    data = bytearray()
    # One read brings what one segment brought: the body has ended only when nothing comes any more.
    async for part in answer.content.iter_any():
        data += part
        if len(data) > largest:
            answer.close()
            raise BodyTooLargeError(f"an answer of more than {largest} bytes")
    answer.release()
    return bytes(data)


async def _without_redirects(request: aiohttp.ClientRequest, send: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    answer = await send(request)
    if answer.status in _REDIRECTS:
        answer.close()
        raise aiohttp.ClientError(f"{answer.status}: a redirect, which is not followed")
    return answer


def connect(
    configuration: Any,
    fence: Callable[[], None],
    count: Callable[[str, str], None],
    write_seconds: float = WRITE_SECONDS,
) -> Client:
    """A client for the API server of a configuration (see `config.load`)."""
    return Client(ApiClient(configuration), fence, count, write_seconds)


def _parsed(data: bytes) -> Any:
    try:
        return from_json(data)
    except ValueError as error:
        raise UnavailableError(0, "Unreadable", f"an answer that is no JSON: {error}") from error


def _seconds(retry_after: str | None) -> float:
    """A Retry-After in seconds, which is how the API server says it; never longer than a minute."""
    return (
        min(_LONGEST_WAIT, float(retry_after))
        if retry_after and retry_after.isascii() and retry_after.isdigit()
        else 0.0
    )


def _error(code: int, data: bytes, retry_after: float) -> ApiError:
    try:
        status = pydantic_core.from_json(data)
        reason, message = str(status.get("reason", "")), str(status.get("message", ""))
    except (ValueError, AttributeError):
        reason, message = "", data[:512].decode(errors="replace")
    if code in _REFUSALS:
        return RefusedError(code, reason, message)
    if code == 500 and message.startswith(_MISSHAPEN):  # noqa: PLR2004 - HTTP
        return RefusedError(422, "Invalid", message)
    if code == 404:  # noqa: PLR2004 - HTTP
        return NotFoundError(code, reason, message)
    if code == 409:  # noqa: PLR2004 - HTTP
        return ConflictError(code, reason, message)
    return UnavailableError(code, reason, message, retry_after)
