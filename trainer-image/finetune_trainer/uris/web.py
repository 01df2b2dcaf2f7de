"""`https://` (and `http://`) addresses: one file."""

from __future__ import annotations

import http.client
import shutil
import urllib.error
import urllib.request
from http import HTTPStatus
from pathlib import Path, PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential

from finetune_trainer.errors import Internal, StageError
from finetune_trainer.uris.address import Address
from finetune_trainer.uris.source import Notify, Version
from finetune_trainer.workspace import is_full

_TIMEOUT_SECONDS: Final = 60
_DENIED: Final = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}
_MISSING: Final = {HTTPStatus.NOT_FOUND, HTTPStatus.GONE}


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code >= HTTPStatus.INTERNAL_SERVER_ERROR or error.code == HTTPStatus.TOO_MANY_REQUESTS
    return isinstance(error, OSError | http.client.HTTPException) and not is_full(error)


_patiently = retry(
    retry=retry_if_exception(_is_transient),
    wait=wait_exponential(multiplier=0.5, max=8),
    stop=stop_after_attempt(5),
    reraise=True,
)


class Web:
    """One file by GET; a Secret's key `TOKEN` is sent as a bearer token."""

    def version(self, address: Address) -> Version:
        """What the server says about the file's age; empty when it says nothing."""
        try:
            return self._head(address)
        except (OSError, http.client.HTTPException) as error:
            raise _explained(address, error) from error

    def download(self, address: Address, version: Version, into: Path, notify: Notify) -> Path:
        del version  # a web server keeps one
        notify(f"downloading {address.uri}")
        target = into / _file_name(address)
        try:
            self._get(address, target)
        except (OSError, http.client.HTTPException) as error:
            if is_full(error):
                raise
            raise _explained(address, error) from error
        return target

    @_patiently
    def _head(self, address: Address) -> Version:
        with urllib.request.urlopen(_request(address, "HEAD"), timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310
            told = (response.headers.get(name) for name in ("ETag", "Last-Modified", "Content-Length"))
            return Version(" ".join(value for value in told if value))

    @_patiently
    def _get(self, address: Address, target: Path) -> None:
        with (
            urllib.request.urlopen(_request(address, "GET"), timeout=_TIMEOUT_SECONDS) as response,  # noqa: S310
            target.open("wb") as file,
        ):
            shutil.copyfileobj(response, file)
            expected = response.headers.get("Content-Length")
            if expected is not None and file.tell() != int(expected):
                raise http.client.IncompleteRead(b"", int(expected) - file.tell())


def _request(address: Address, method: str) -> urllib.request.Request:
    token = address.credential("TOKEN")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return urllib.request.Request(address.uri, method=method, headers=headers)  # noqa: S310 - the scheme is checked


def _file_name(address: Address) -> str:
    return unquote(PurePosixPath(urlsplit(address.uri).path).name) or "file"


def _explained(address: Address, error: Exception) -> StageError:
    if isinstance(error, urllib.error.HTTPError):
        if error.code in _DENIED:
            return address.denied("name a Secret with the key TOKEN in secretRef")
        if error.code in _MISSING:
            return address.missing()
    return Internal(f"cannot fetch {address.kind} `{address.uri}`: {error}", field=address.field)
