"""Checksums of files and folders, the same in every stage."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

SUMS_FILE: Final = "SHA256SUMS"
"""Lists every other file of an artifact; written last, so that its presence means the artifact is complete."""


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def files_below(folder: Path) -> list[Path]:
    """Every file below `folder`, ordered by its relative path."""
    return sorted(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.relative_to(folder).as_posix()
    )


def sums_text(folder: Path) -> str:
    """The content of a SHA256SUMS file (as sha256sum(1) writes it) for every file below `folder` but itself."""
    return "".join(
        f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n"
        for path in files_below(folder)
        if path.relative_to(folder).as_posix() != SUMS_FILE
    )


def parse_sums(text: str) -> dict[str, str]:
    """From relative path to sha256."""
    pairs = (line.split("  ", 1) for line in text.splitlines() if line)
    return {path: digest for digest, path in pairs}


def folder_digest(folder: Path) -> str:
    """One sha256 for a whole folder: names and contents. `TrainedModel.digest` is this."""
    return hashlib.sha256(sums_text(folder).encode()).hexdigest()
