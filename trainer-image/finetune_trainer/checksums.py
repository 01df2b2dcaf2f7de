"""The SHA256SUMS file of an artifact, as sha256sum(1) writes and checks it."""

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


def text_sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def files_below(folder: Path) -> dict[str, Path]:
    """Every file below `folder` by its relative path, in the order of the paths."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return dict(sorted(found.items()))


def sums_text(folder: Path) -> str:
    """The content of a SHA256SUMS file for every file below `folder` but itself."""
    lines = (f"{file_sha256(path)}  {name}\n" for name, path in files_below(folder).items() if name != SUMS_FILE)
    return "".join(lines)


def parse_sums(text: str) -> dict[str, str]:
    """From relative path to sha256."""
    pairs = (line.split("  ", 1) for line in text.splitlines() if line)
    return {path: digest for digest, path in pairs}
