"""What a reader of files gives, and how it says that it cannot go on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Content = dict[str, Any] | str
"""A row's values, or what is wrong with the row."""

Records = Iterator[tuple[int, Content]]
"""Rows with their numbers: the number of the line on which a row begins, where the file has lines."""


class UnreadableError(Exception):
    """Nothing after this place in the file can be read; the message says why, `advice` what to do."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.advice = advice


@dataclass(frozen=True)
class Reader:
    """One way to read a file. `records` raises `UnreadableError` where the file is broken beyond a row."""

    records: Callable[[Path], Records]
    unit: str = "line"
    """What the numbers count: `line` or `row`."""


DAMAGED = "it is cut off or damaged: write or upload it again"
