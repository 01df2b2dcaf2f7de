"""Whole folders to and from a `Folder`, complete only when their SHA256SUMS says so."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

from finetune_trainer.checksums import SUMS_FILE, file_sha256, files_below, parse_sums, sums_text
from finetune_trainer.errors import CannotWrite, InvalidData
from finetune_trainer.uris.folder import Folder
from finetune_trainer.uris.source import Notify

_READ_BACK_BYTES: Final = 2 << 30
"""A larger file is verified by its size alone: reading it back would take as long as writing it."""


def is_complete(folder: Folder, sums: str) -> bool:
    """Whether the folder holds a complete upload with exactly these checksums."""
    stored = folder.read(SUMS_FILE)
    return stored is not None and stored.decode() == sums and _first_fault(folder, sums) is None


def upload(local: Path, folder: Folder, notify: Notify) -> str:
    """Uploads everything below `local`, verifies it, and only then adds SHA256SUMS; returns the content of that.

    Does nothing when all of it is there already; removes what an earlier upload left over. `local` stays as it is.
    Raises `CannotWrite` when what arrived is not what was sent.
    """
    sums = sums_text(local)
    if is_complete(folder, sums):
        notify(f"{folder.uri} is complete already")
        return sums
    earlier = parse_sums((folder.read(SUMS_FILE) or b"").decode())
    folder.remove(SUMS_FILE)  # from here on nobody takes the folder for complete
    files = {name: path for name, path in files_below(local).items() if name != SUMS_FILE}
    for name in earlier.keys() - files.keys():
        folder.remove(name)
    for count, (name, path) in enumerate(files.items(), start=1):
        notify(f"uploading {name} ({path.stat().st_size:,} bytes), file {count} of {len(files)}")
        folder.put(path, name)
    notify("verifying the upload")
    if (fault := _first_fault(folder, sums)) is not None:
        raise CannotWrite(f"the upload to {folder.uri} is not what was sent: {fault}", advice="check the storage")
    with tempfile.TemporaryDirectory() as temporary:
        (Path(temporary) / SUMS_FILE).write_text(sums)
        folder.put(Path(temporary) / SUMS_FILE, SUMS_FILE)
    return sums


def download(folder: Folder, local: Path, notify: Notify) -> None:
    """Fetches a complete upload and verifies it. Raises `InvalidData` for one that is incomplete or altered."""
    listed = folder.read(SUMS_FILE)
    if listed is None:
        raise InvalidData(f"{folder.uri} holds no complete upload: it has no {SUMS_FILE}")
    sums = parse_sums(listed.decode())
    for count, (name, digest) in enumerate(sums.items(), start=1):
        notify(f"downloading {name}, file {count} of {len(sums)}")
        folder.get(name, local / name)
        if file_sha256(local / name) != digest:
            raise InvalidData(f"{folder.uri}/{name} is not what its {SUMS_FILE} says")


def remove_all(folder: Folder) -> None:
    """Removes every file, SHA256SUMS first."""
    folder.remove(SUMS_FILE)
    for name in folder.sizes():
        folder.remove(name)


def _first_fault(folder: Folder, sums: str) -> str | None:
    sizes = folder.sizes()
    for name, digest in parse_sums(sums).items():
        if name not in sizes:
            return f"{name} is missing"
        if sizes[name] <= _READ_BACK_BYTES and folder.sha256(name) != digest:
            return f"{name} has another checksum"
    return None
