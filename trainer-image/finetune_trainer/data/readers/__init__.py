"""The registry of readers: a kind of file is a function and a line here."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Final

from finetune_trainer.contract import SampleBy
from finetune_trainer.data.readers.base import Reader, UnreadableError
from finetune_trainer.data.readers.delimited import delimited
from finetune_trainer.data.readers.json_document import json_document
from finetune_trainer.data.readers.json_lines import json_lines
from finetune_trainer.data.readers.parquet import parquet
from finetune_trainer.data.readers.plain import documents, lines, paragraphs

__all__ = ["Reader", "UnreadableError", "reader_of", "suffixes"]

_READERS: Final[dict[str, Reader]] = {
    ".jsonl": Reader(json_lines),
    ".ndjson": Reader(json_lines),
    ".json": Reader(json_document, unit="row"),
    ".csv": Reader(partial(delimited, delimiter=",")),
    ".tsv": Reader(partial(delimited, delimiter="\t")),
    ".parquet": Reader(parquet, unit="row"),
}
_TEXT: Final = ".txt"
_TEXT_READERS: Final = {
    SampleBy.PARAGRAPH: Reader(paragraphs),
    SampleBy.DOCUMENT: Reader(documents),
    SampleBy.LINE: Reader(lines),
}


def reader_of(path: Path, sample_by: SampleBy = SampleBy.PARAGRAPH) -> Reader | None:
    """By the name's ending, `.gz` or not; None for a kind that cannot be read."""
    endings = [suffix.lower() for suffix in path.suffixes if suffix != ".gz"]
    if endings and endings[-1] == _TEXT:
        return _TEXT_READERS[sample_by]
    return _READERS.get(endings[-1]) if endings else None


def suffixes() -> str:
    """For a message."""
    return ", ".join((*_READERS, _TEXT))
