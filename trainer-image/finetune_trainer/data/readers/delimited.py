"""`.csv` and `.tsv`: a header, and a row with as many values as it has columns."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final

from finetune_trainer.data.readers.base import Content, Records, UnreadableError
from finetune_trainer.data.readers.encoding import text_lines, undecodable

_LONGEST_VALUE: Final = 16 << 20


class _Lines:
    """The lines of a file. A record that turned out to be broken gives back all of its lines but the first."""

    def __init__(self, path: Path) -> None:
        self._source = text_lines(path)
        self._returned: deque[tuple[int, str]] = deque()
        self._taken: list[tuple[int, str]] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._returned.popleft() if self._returned else next(self._source)
        self._taken.append(line)
        return line[1]

    def begin_record(self) -> None:
        self._taken = []

    def give_back(self) -> None:
        self._returned.extendleft(reversed(self._taken[1:]))

    @property
    def record_number(self) -> int:
        """The line on which the record began."""
        return self._taken[0][0]


def delimited(path: Path, *, delimiter: str) -> Records:
    """A quote that is not closed is a fault of the row it is in: reading goes on with the line after it."""
    csv.field_size_limit(_LONGEST_VALUE)
    lines = _Lines(path)
    records = partial(csv.reader, lines, delimiter=delimiter, strict=True)
    columns: list[str] | None = None
    reader = records()
    while True:
        lines.begin_record()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if columns is None:
                raise UnreadableError(f"its header is no row of columns: {error}", "correct its first line") from error
            lines.give_back()
            reader = records()
            yield lines.record_number, f"has a quote that is not closed, or text beside one: {error}"
            continue
        if columns is None:
            columns = _header(values)
        elif values:
            yield lines.record_number, _row(columns, values)


def _header(values: list[str]) -> list[str]:
    for column in values:
        if (fault := undecodable(column)) is not None:
            raise UnreadableError(f"its header {fault}", "convert it to UTF-8")
        if values.count(column) > 1:
            raise UnreadableError(f"two of its columns are called `{column}`", "rename one of them")
    return values


def _row(columns: list[str], values: list[str]) -> Content:
    if len(values) != len(columns):
        than = "more" if len(values) > len(columns) else "fewer"
        return f"has {len(values)} values, {than} than the {len(columns)} columns of the header"
    found: dict[str, Any] = dict(zip(columns, values, strict=True))
    return next(filter(None, map(undecodable, values)), None) or found
