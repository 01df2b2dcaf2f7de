"""The manifest that tells a whole checkpoint from a torn one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from finetune_trainer.atomic import replacing_file, sync
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
    agrees_on: dict[str, JsonValue] | None = None
    """By field of the spec: what another job must have in common with the writer to go on from here."""
    shapes: str | None = None
    """Digest over the names and shapes of the parameters that are trained."""
    origin: str | None = None
    """URI of the other job's checkpoint that this one is a copy of."""


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
    write(folder, manifest)
    return manifest


def write(folder: Path, manifest: Manifest) -> None:
    """Put a manifest into the folder that it describes, after everything else is on the disk."""
    for file in manifest.files:
        sync(folder / file.path)
    with replacing_file(folder / MANIFEST) as temporary:
        temporary.write_text(manifest.model_dump_json(indent=1))
        temporary.chmod(0o644)
        sync(temporary)
    sync(folder)


def read(folder: Path) -> Manifest:
    """The folder's manifest, unverified. Raises TornError when it is missing or not one."""
    try:
        return parse((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        raise TornError("it has no manifest") from None
    except OSError as error:
        raise TornError(f"its manifest cannot be read: {error}") from error


def parse(content: bytes) -> Manifest:
    """A manifest's file. Raises TornError for one that is none, or that names files outside of its folder."""
    try:
        manifest = Manifest.model_validate_json(content)
    except ValidationError as error:
        raise TornError(f"its manifest cannot be read: {error}") from error
    for file in manifest.files:
        path = PurePosixPath(file.path)
        if path.is_absolute() or ".." in path.parts:
            raise TornError(f"its manifest names {file.path}, which is outside of it")
    return manifest


def verify(folder: Path) -> Manifest:
    """The folder's manifest, after every file has been compared with it. Raises TornError."""
    manifest = read(folder)
    check_digests(folder, manifest.files)
    return manifest


def check_digests(folder: Path, files: tuple[FileDigest, ...]) -> None:
    """Compare every file with what was written. Raises TornError."""
    check_sizes(folder, files)
    for file in files:
        if file_sha256(folder / file.path) != file.sha256:
            raise TornError(f"{file.path} is not what was written")


def check_sizes(folder: Path, files: tuple[FileDigest, ...]) -> None:
    """The cheap half of verification: every file is there, at its length. Raises TornError."""
    sizes = {name: path.stat().st_size for name, path in files_below(folder).items()}
    compare_sizes(sizes, files)


def compare_sizes(sizes: Mapping[str, int], files: tuple[FileDigest, ...]) -> None:
    """The same for a folder that is elsewhere, by the sizes of what it holds. Raises TornError."""
    for file in files:
        if file.path not in sizes:
            raise TornError(f"{file.path} is missing")
        if sizes[file.path] != file.size:
            raise TornError(f"{file.path} has {sizes[file.path]} of {file.size} bytes")
