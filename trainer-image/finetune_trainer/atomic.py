"""Files that a reader sees whole: the old content or the new, never a part."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing_file(target: Path) -> Iterator[Path]:
    """A temporary file beside `target` that takes its place when the block ends well. Not fsynced (see `sync`).

    Raises OSError when the folder cannot be written.
    """
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}-")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def replace_file(target: Path, content: str | bytes) -> None:
    """Write a small file at once, readable by every user. Not fsynced. Raises OSError."""
    with replacing_file(target) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        temporary.chmod(0o644)


def sync(path: Path) -> None:
    """Force a file, or the names in a folder, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
