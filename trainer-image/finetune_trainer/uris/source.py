"""What every remote source can do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from finetune_trainer.uris.address import Address

Notify = Callable[[str], None]
"""Takes a line for a person about what is going on."""


@dataclass(frozen=True)
class Version:
    """Which state of a remote thing this is, as cheaply as its server tells; equal versions hold equal bytes."""

    tag: str
    revision: str | None = None
    """A name by which the server gives this very state again."""


class Source(Protocol):
    def version(self, address: Address) -> Version:
        """Raises `NotFound` when the address leads nowhere or access is denied."""
        ...

    def download(self, address: Address, version: Version, into: Path, notify: Notify) -> Path:
        """Fetches everything below the address into the folder; returns the file or folder that was named."""
        ...
