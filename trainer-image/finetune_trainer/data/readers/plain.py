"""`.txt`: a document a paragraph, a file or a line, as the job says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from finetune_trainer.data.readers.base import Content, Records
from finetune_trainer.data.readers.encoding import text_lines, undecodable

_LONGEST: Final = 1 << 20
"""Letters after which a document is taken for ended: it need not fit into memory."""


def lines(path: Path) -> Records:
    return _documents(path, lambda _: True)


def paragraphs(path: Path) -> Records:
    """Paragraphs are what empty lines divide."""
    return _documents(path, lambda line: not line.strip())


def documents(path: Path) -> Records:
    return _documents(path, lambda _: False)


def _documents(path: Path, ends_with: Callable[[str], bool]) -> Records:
    """With the number of the line on which each begins."""
    found: list[str] = []
    begin, letters = 1, 0
    for number, line in text_lines(path):
        if not found and not line.strip():
            continue
        if not found:
            begin, letters = number, 0
        found.append(line)
        letters += len(line)
        if ends_with(line) or letters >= _LONGEST:
            yield begin, _document(found)
            found = []
    if found:
        yield begin, _document(found)


def _document(found: list[str]) -> Content:
    text = "".join(found).rstrip()
    return undecodable(text) or {"text": text.replace("\r\n", "\n")}
