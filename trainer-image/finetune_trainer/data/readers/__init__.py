"""The registry of readers: a kind of file is a function and a line here."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from finetune_trainer.data.readers.base import Reader, UnreadableError
from finetune_trainer.data.readers.delimited import delimited
from finetune_trainer.data.readers.json_document import json_document
from finetune_trainer.data.readers.json_lines import json_lines
from finetune_trainer.data.readers.parquet import parquet
from finetune_trainer.data.readers.plain import plain_lines

__all__ = ["Reader", "UnreadableError", "reader_of", "suffixes"]

_READERS: Final[dict[str, Reader]] = {
    ".jsonl": Reader(json_lines),
    ".ndjson": Reader(json_lines),
    ".json": Reader(json_document, unit="row"),
    ".csv": Reader(partial(delimited, delimiter=",")),
    ".tsv": Reader(partial(delimited, delimiter="\t")),
    ".parquet": Reader(parquet, unit="row"),
    ".txt": Reader(plain_lines),
}


def reader_of(path: Path) -> Reader | None:
    """By the name's ending, `.gz` or not; None for a kind that cannot be read."""
    endings = [suffix for suffix in path.suffixes if suffix != ".gz"]
    return _READERS.get(endings[-1].lower()) if endings else None


def suffixes() -> str:
    """For a message."""
    return ", ".join(_READERS)
