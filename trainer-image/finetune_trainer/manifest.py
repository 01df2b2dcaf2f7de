"""The manifest that tells a whole checkpoint from a torn one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune_trainer.checksums import SUMS_FILE, file_sha256, files_below, sums_text, text_sha256
from finetune_trainer.workspace import make_readable

MANIFEST: Final = "manifest.json"


class TornError(Exception):
    """A folder is not what its manifest says; the message names the first difference."""


class FileDigest(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    path: str
    """Relative to the folder, with `/`."""
    size: int
    sha256: str


class Facts(BaseModel):
    """What a checkpoint's writer knows about it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    step: int
    world_size: int
    global_batch: int
    """Rows that one step consumes over all ranks; the position in the data is `step * global_batch`."""
    run: str
    """Digest of the configuration that decides the weights; another run's checkpoint is never resumed."""
    rng: tuple[str, ...]
    """Files with the state of each rank's random number generators, by rank."""
    epoch: float | None = None
    loss: float | None = None
    eval_loss: float | None = None
    base_eval_loss: float | None = None


class Manifest(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    facts: Facts
    files: tuple[FileDigest, ...]

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)


def digest_of(folder: Path) -> str:
    """sha256, in hex, over the names and sha256 digests of a folder's files (the content of its SHA256SUMS).

    Raises OSError when a file cannot be read, ValueError when the folder holds none.
    """
    sums = sums_text(folder)
    if not sums:
        raise ValueError(f"{folder} holds no files")
    return text_sha256(sums)


def scan(folder: Path) -> tuple[FileDigest, ...]:
    """Digest of every file below the folder, but its own manifest and checksums, sorted by path."""
    return tuple(
        FileDigest(path=name, size=path.stat().st_size, sha256=file_sha256(path))
        for name, path in files_below(folder).items()
        if name not in {MANIFEST, SUMS_FILE}
    )


def seal(folder: Path, facts: Facts) -> Manifest:
    """Write the manifest of a folder whose files are all there, and force everything to the disk."""
    make_readable(folder)
    manifest = Manifest(facts=facts, files=scan(folder))
    for file in manifest.files:
        sync(folder / file.path)
    temporary = folder / f".{MANIFEST}"
    temporary.write_text(manifest.model_dump_json(indent=1))
    temporary.chmod(0o644)
    sync(temporary)
    temporary.replace(folder / MANIFEST)
    sync(folder)
    return manifest


def read(folder: Path) -> Manifest:
    """The folder's manifest, unverified. Raises TornError when it is missing or not one."""
    try:
        return Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise TornError("it has no manifest") from None
    except (ValidationError, OSError) as error:
        raise TornError(f"its manifest cannot be read: {error}") from error


def verify(folder: Path) -> Manifest:
    """The folder's manifest, after every file has been compared with it. Raises TornError."""
    manifest = read(folder)
    check_sizes(folder, manifest.files)
    for file in manifest.files:
        if file_sha256(folder / file.path) != file.sha256:
            raise TornError(f"{file.path} is not what was written")
    return manifest


def check_sizes(folder: Path, files: tuple[FileDigest, ...]) -> None:
    """The cheap half of verification: every file is there, at its length. Raises TornError."""
    for file in files:
        path = folder / file.path
        if not path.is_file():
            raise TornError(f"{file.path} is missing")
        if path.stat().st_size != file.size:
            raise TornError(f"{file.path} has {path.stat().st_size} of {file.size} bytes")


def sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
