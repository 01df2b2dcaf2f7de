"""`hf://` addresses: a repository of the Hugging Face Hub, or a file or folder in one."""

from __future__ import annotations

import glob
import shutil
import tempfile
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
from finetune_trainer.uris.address import Address, repository_and_path
from finetune_trainer.uris.hub_dataset import CARDS, files_of_part
from finetune_trainer.uris.source import Notify, Version
from finetune_trainer.workspace import is_full

_HIDDEN: Final = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}
"""What the Hub answers for a repository that the token may not see, and for one that does not exist."""
_OTHER_WEIGHTS: Final = ["*.bin", "*.pt", "*.pth", "*.h5", "*.msgpack", "*.onnx", "*.gguf", "original/*", "onnx/*"]
"""Copies of the weights that are not needed beside safetensors."""


def _is_transient(error: BaseException) -> bool:
    if isinstance(error, HfHubHTTPError):
        status = _status(error)
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
        repository, path = repository_and_path(address)
        try:
            info = self._info(address, repository)
        except (OSError, httpx2.HTTPError, HFValidationError) as error:
            raise _explained(address, error) from error
        files = [file.rfilename for file in info.siblings or []]
        if path and not any(name == path or name.startswith(path + "/") for name in files):
            raise address.missing(f"does not exist: `{repository}` has no `{path}`", "check the path in the repository")
        part = None if path else address.part
        return Version(f"{repository}@{info.sha}" + (f"#{part}" if part else ""), revision=info.sha)

    def download(self, address: Address, version: Version, into: Path, notify: Notify) -> Path:
        repository, path = repository_and_path(address)
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
        if address.part is not None and not path:
            wanted: list[str] | None = self._files_of_part(api, address, repository, version)
            unwanted = None
        else:
            wanted = [path, f"{path}/*"] if path else None
            files = api.list_repo_files(repository, repo_type=_type(address), revision=version.revision)
            has_safetensors = any(name.endswith(".safetensors") for name in files)
            unwanted = _OTHER_WEIGHTS if has_safetensors and not path else None
        api.snapshot_download(
            repository,
            repo_type=_type(address),
            revision=version.revision,
            local_dir=into,
            allow_patterns=wanted,
            ignore_patterns=unwanted,
        )

    def _files_of_part(self, api: HfApi, address: Address, repository: str, version: Version) -> list[str]:
        """As patterns. Only the dataset's card is downloaded to find out."""
        files = api.list_repo_files(repository, repo_type="dataset", revision=version.revision)
        with tempfile.TemporaryDirectory() as folder:
            for name in CARDS & set(files):
                api.hf_hub_download(repository, name, repo_type="dataset", revision=version.revision, local_dir=folder)
            return [glob.escape(name) for name in files_of_part(address, files, Path(folder))]


def _type(address: Address) -> str:
    return "dataset" if address.kind == "dataset" else "model"


def _api(address: Address) -> HfApi:
    return HfApi(endpoint=address.credential("HF_ENDPOINT"), token=address.credential("HF_TOKEN"))


def _status(error: HfHubHTTPError) -> int:
    return int(error.response.status_code)


def _hidden(address: Address, error: Exception) -> StageError:
    if address.secret is not None and "Invalid credentials" in str(error):
        known = f"the Hub does not know the token in HF_TOKEN of the Secret `{address.secret.name}`"
        return address.denied(f"{known}: set a valid one")
    return address.missing(
        "does not exist, or is private", "check the name; for a private one, name a Secret with HF_TOKEN"
    )


def _explained(address: Address, error: Exception) -> StageError:
    if isinstance(error, GatedRepoError):
        return address.denied("accept the repository's terms on the Hub and name a Secret with HF_TOKEN in secretRef")
    if isinstance(error, RevisionNotFoundError):
        return NotFound(
            f"{address.kind} `{address.uri}` has no revision `{address.revision}`",
            field=address.sibling("revision"),
            advice="name a branch, tag or commit of the repository",
        )
    if isinstance(error, EntryNotFoundError) or (isinstance(error, HfHubHTTPError) and _status(error) in _HIDDEN):
        return _hidden(address, error)
    if isinstance(error, HFValidationError):
        return InvalidConfig(f"`{address.uri}`: {error}", field=address.field, advice="write hf://owner/name")
    if isinstance(error, OfflineModeIsEnabled):
        return address.missing("cannot be fetched: HF_HUB_OFFLINE is set", "unset it in podTemplate, or use a volume")
    return Internal(f"cannot fetch {address.kind} `{address.uri}`: {error}", field=address.field)
