"""`.json`: a list of objects, or an object with one list in it; a file that is really JSON lines is read as such."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import IO, Any, Final

from finetune_trainer.data.readers.base import DAMAGED, Content, Records, UnreadableError
from finetune_trainer.data.readers.encoding import open_text, undecodable
from finetune_trainer.data.readers.json_lines import json_lines, json_object

_CHUNK: Final = 1 << 16
_LONGEST_ROW: Final = 64 << 20
_SPACE: Final = " \t\r\n"


def json_document(path: Path) -> Records:
    """A list is read piece by piece, anything else at once."""
    with open_text(path) as text:
        begins_with = _first_letter(text)
    if begins_with == "[":
        with open_text(path) as text:
            yield from enumerate(_Elements(text), start=1)
    elif begins_with:
        yield from _object_or_lines(path)


def _object_or_lines(path: Path) -> Records:
    """JSON lines where the first line is an object and others follow, or where the whole is no JSON."""
    first, second = _first_lines(path)
    if second and isinstance(first, dict):
        yield from json_lines(path)
        return
    try:
        yield from enumerate(_rows_of(path), start=1)
    except UnreadableError:
        if not isinstance(second, dict):
            raise
        yield from json_lines(path)


def _first_letter(text: IO[str]) -> str:
    while piece := text.read(_CHUNK):
        if stripped := piece.strip(_SPACE):
            return stripped[0]
    return ""


def _first_lines(path: Path) -> tuple[Content, Content]:
    """What the first two lines with anything on them are by themselves; empty where there is none."""
    with open_text(path) as text:
        lines = (line for line in iter(partial(text.readline, _LONGEST_ROW), "") if line.strip())
        first, second, *_ = [*islice(map(json_object, lines), 2), "", ""]
    return first, second


def _rows_of(path: Path) -> Iterator[Content]:
    with open_text(path) as text:
        whole = text.read()
    if (fault := undecodable(whole)) is not None:
        raise UnreadableError(f"it {fault}", "convert it to UTF-8")
    try:
        document = json.loads(whole)
    except (ValueError, RecursionError) as error:
        raise UnreadableError(f"it is not JSON: {error}", DAMAGED) from error
    lists = [value for value in document.values() if isinstance(value, list)] if isinstance(document, dict) else []
    rows = lists[0] if len(lists) == 1 else [document]
    yield from (_object(row) for row in rows)


def _object(value: Any) -> Content:
    return value if isinstance(value, dict) else f"is {type(value).__name__}, not an object"


class _Elements:
    """The elements of a JSON list, with no more of it in memory than a piece and the longest element."""

    def __init__(self, text: IO[str]) -> None:
        self._text = text
        self._buffer = ""
        self._at = 0
        self._lines = 1
        self._ended = False
        self._decoder = json.JSONDecoder()

    def __iter__(self) -> Iterator[Content]:
        self._skip("[")
        if self._letter() == "]":
            self._at += 1
        else:
            yield self._element()
            while self._letter() == ",":
                self._at += 1
                yield self._element()
            self._skip("]")
        if rest := self._letter():
            raise self._broken(f"{rest!r} follows the list")

    def _element(self) -> Content:
        if not self._letter():
            raise self._broken("the list does not end")
        while True:
            try:
                value, end = self._decoder.raw_decode(self._buffer, self._at)
            except (ValueError, RecursionError) as error:
                if not self._more():
                    raise self._broken(getattr(error, "msg", str(error))) from error
                continue
            if end == len(self._buffer) and self._more():  # a number may go on
                continue
            fault = undecodable(self._buffer[self._at : end])
            self._at = end
            return fault or _object(value)

    def _skip(self, letter: str) -> None:
        found = self._letter()
        if found != letter:
            raise self._broken(f"expected {letter!r}" + (f", not {found!r}" if found else ", but the file ends"))
        self._at += 1

    def _letter(self) -> str:
        """The next that is no white space; empty at the end."""
        while True:
            while self._at < len(self._buffer) and self._buffer[self._at] in _SPACE:
                self._at += 1
            if self._at < len(self._buffer):
                return self._buffer[self._at]
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Read on, twice as much each time that an element is not whole yet."""
        waiting = len(self._buffer) - self._at
        if self._ended or waiting > _LONGEST_ROW:
            return False
        piece = self._text.read(max(_CHUNK, waiting))
        self._ended = not piece
        self._lines += self._buffer.count("\n", 0, self._at)
        self._buffer = self._buffer[self._at :] + piece
        self._at = 0
        return bool(piece)

    def _broken(self, reason: str) -> UnreadableError:
        line = self._lines + self._buffer.count("\n", 0, self._at)
        return UnreadableError(f"it is not JSON in what begins at line {line}: {reason}", DAMAGED)
