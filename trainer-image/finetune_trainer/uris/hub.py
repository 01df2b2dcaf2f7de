"""`hf://` addresses: a repository of the Hugging Face Hub, or a file or folder in one."""

from __future__ import annotations

import shutil
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    OfflineModeIsEnabled,
    RevisionNotFoundError,
)
from tenacity import retry, retry_if_exception, stop_after_attempt, wait_exponential

from finetune_trainer.errors import Internal, InvalidConfig, NotFound, StageError
from finetune_trainer.uris.address import Address
from finetune_trainer.uris.source import Notify, Version
from finetune_trainer.workspace import is_full

_HIDDEN: Final = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}
"""What the Hub answers for a repository that the token may not see, and for one that does not exist."""
_OTHER_WEIGHTS: Final = ["*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*", "onnx/*"]
"""Copies of the weights that are not needed beside safetensors."""


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return bool(status >= HTTPStatus.INTERNAL_SERVER_ERROR or status == HTTPStatus.TOO_MANY_REQUESTS)
    return isinstance(error, httpx2.TransportError | TimeoutError)


_patiently = retry(
    retry=retry_if_exception(_is_transient),
    wait=wait_exponential(multiplier=0.5, max=8),
    stop=stop_after_attempt(4),
    reraise=True,
)


class Hub:
    """Secret keys: `HF_TOKEN`, and `HF_ENDPOINT` for a mirror."""

    def version(self, address: Address) -> Version:
        repository, path = _split(address)
        try:
            info = self._info(address, repository)
        except (OSError, httpx2.HTTPError, HFValidationError) as error:
            raise _explained(address, error) from error
        files = [file.rfilename for file in info.siblings or []]
        if path and not any(name == path or name.startswith(path + "/") for name in files):
            raise address.missing(f"does not exist: `{repository}` has no `{path}`", "check the path in the repository")
        return Version(f"{repository}@{info.sha}", revision=info.sha)

    def download(self, address: Address, version: Version, into: Path, notify: Notify) -> Path:
        repository, path = _split(address)
        notify(f"downloading {address.uri} at {(version.revision or 'main')[:12]}")
        try:
            self._snapshot(address, repository, path, version, into)
        except (OSError, httpx2.HTTPError) as error:
            if is_full(error):
                raise
            raise _explained(address, error) from error
        shutil.rmtree(into / ".cache", ignore_errors=True)
        return into / path if path else into

    @_patiently
    def _info(self, address: Address, repository: str) -> Any:
        return _api(address).repo_info(repository, repo_type=_type(address), revision=address.revision)

    @_patiently
    def _snapshot(self, address: Address, repository: str, path: str, version: Version, into: Path) -> None:
        api = _api(address)
        files = api.list_repo_files(repository, repo_type=_type(address), revision=version.revision)
        has_safetensors = any(name.endswith(".safetensors") for name in files)
        api.snapshot_download(
            repository,
            repo_type=_type(address),
            revision=version.revision,
            local_dir=into,
            allow_patterns=[path, f"{path}/*"] if path else None,
            ignore_patterns=_OTHER_WEIGHTS if has_safetensors and not path else None,
        )


def _split(address: Address) -> tuple[str, str]:
    """Repository and path in it."""
    rest = address.rest.removeprefix("datasets/").removeprefix("models/")
    parts = rest.split("/")
    return "/".join(parts[:2]), "/".join(parts[2:])


def _type(address: Address) -> str:
    return "dataset" if address.kind == "dataset" else "model"


def _api(address: Address) -> HfApi:
    return HfApi(endpoint=address.credential("HF_ENDPOINT"), token=address.credential("HF_TOKEN"))


def _explained(address: Address, error: Exception) -> StageError:
    if isinstance(error, GatedRepoError):
        return address.denied("accept the repository's terms on the Hub and name a Secret with HF_TOKEN in secretRef")
    if isinstance(error, RevisionNotFoundError):
        return NotFound(
            f"{address.kind} `{address.uri}` has no revision `{address.revision}`",
            field=address.field.removesuffix(".uri") + ".revision",
            advice="name a branch, tag or commit of the repository",
        )
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if status in _HIDDEN or isinstance(error, EntryNotFoundError):
        return address.missing(
            "does not exist, or is private", "check the name; for a private one, name a Secret with HF_TOKEN"
        )
    if isinstance(error, HFValidationError):
        return InvalidConfig(f"`{address.uri}`: {error}", field=address.field, advice="write hf://owner/name")
    if isinstance(error, OfflineModeIsEnabled):
        return address.missing("cannot be fetched: HF_HUB_OFFLINE is set", "unset it in podTemplate, or use a volume")
    return Internal(f"cannot fetch {address.kind} `{address.uri}`: {error}", field=address.field)
