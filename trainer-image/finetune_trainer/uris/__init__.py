"""Every URI of a job is resolved here: `fetch` reads, `open_folder` writes."""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune_trainer.errors import InvalidConfig
from finetune_trainer.uris.address import Address
from finetune_trainer.uris.local import existing_path
from finetune_trainer.uris.source import Notify, Source, Version
from finetune_trainer.workspace import Paths, replacing_folder

__all__ = ["Address", "Fetched", "Notify", "download_folder", "fetch", "fetched_before"]

_LOCAL: Final = ("file", "pvc", "pkg")
_REMOTE: Final = {
    "hf": "finetune_trainer.uris.hub:Hub",
    "s3": "finetune_trainer.uris.s3:S3",
    "https": "finetune_trainer.uris.web:Web",
    "http": "finetune_trainer.uris.web:Web",
}
"""By name, so that a stage imports only the client that its addresses need."""
_RECEIPT: Final = ".finetune-source.json"


@dataclass(frozen=True)
class Fetched:
    path: Path
    """The file or folder that the address names. A local one is used where it is, never copied."""
    revision: str | None
    """Pins what was fetched, where the source has revisions."""


class _Receipt(BaseModel):
    """What a download folder holds."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    uri: str
    asked_revision: str | None
    tag: str
    revision: str | None
    path: str


def fetch(address: Address, paths: Paths, into: Path, notify: Notify) -> Fetched:
    """Makes what the address names available as local files; `into` takes a download, and keeps it for next time.

    Raises `NotFound` naming the field of the spec when it is missing or denied, `CannotWrite` without space.
    """
    if address.scheme in _LOCAL:
        return Fetched(existing_path(address, paths), revision=None)
    source = _source(address)
    version = source.version(address)
    receipt = _receipt(into)
    if receipt is not None and (receipt.uri, receipt.tag) == (address.uri, version.tag) and version.tag:
        return Fetched(into / receipt.path, receipt.revision)
    return _download(source, address, version, into, notify)


def fetched_before(address: Address, paths: Paths, into: Path) -> Fetched | None:
    """What is there without asking any server: local files, or an earlier download of the same revision."""
    if address.scheme in _LOCAL:
        return Fetched(existing_path(address, paths), revision=None)
    receipt = _receipt(into)
    if receipt is None or receipt.uri != address.uri:
        return None
    same = address.revision in (receipt.asked_revision, receipt.revision)
    return Fetched(into / receipt.path, receipt.revision) if same else None


def download_folder(paths: Paths, address: Address) -> Path:
    """Where a dataset's download lives."""
    parts = f"{address.uri}@{address.revision}#{address.part}"
    name = hashlib.sha256(parts.encode()).hexdigest()[:16]
    return paths.downloads_dir / name


def _download(source: Source, address: Address, version: Version, into: Path, notify: Notify) -> Fetched:
    with replacing_folder(into) as temporary:
        named = source.download(address, version, temporary, notify).relative_to(temporary)
        receipt = _Receipt(
            uri=address.uri,
            asked_revision=address.revision,
            tag=version.tag,
            revision=version.revision,
            path=named.as_posix(),
        )
        (temporary / _RECEIPT).write_text(receipt.model_dump_json())
    return Fetched(into / named, version.revision)


def _source(address: Address) -> Source:
    if address.scheme not in _REMOTE:
        known = ", ".join(f"{scheme}://" for scheme in (*_REMOTE, *_LOCAL))
        raise InvalidConfig(
            f"cannot read `{address.scheme}://` addresses", field=address.field, advice=f"use one of {known}"
        )
    module, _, name = _REMOTE[address.scheme].partition(":")
    source: Source = getattr(importlib.import_module(module), name)()
    return source


def _receipt(folder: Path) -> _Receipt | None:
    try:
        return _Receipt.model_validate_json((folder / _RECEIPT).read_bytes())
    except (OSError, ValidationError):
        return None
