"""Reads the rows of a dataset from files, one after the other, whatever the files are."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final

from finetune_trainer.contract import DatasetSource
from finetune_trainer.errors import InvalidData

_BATCH: Final = 1024
_FIELD_LIMIT: Final = 64 << 20


@dataclass(frozen=True)
class RawRow:
    """A row as its file has it: its values, or what is wrong with it."""

    place: str
    """For a person: `row 12`, or `b.jsonl row 12` in a dataset of several files."""
    values: dict[str, Any] | None = None
    fault: str | None = None


Reader = Callable[[Path], Iterator[tuple[int, dict[str, Any] | str]]]
"""Yields the row's number (in text files its line) with its values, or with what is wrong."""


def data_files(path: Path, source: DatasetSource, field: str) -> list[Path]:
    """The files of the dataset, in the order of their names. Raises `InvalidData` when there is none to read.

    In a folder, files with the split's name in their path are taken where there are any.
    """
    if path.is_file():
        if _reader(path) is None:
            raise InvalidData(f"cannot read `{path.name}`", field=field, advice=f"use one of {_suffixes()}")
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and _is_data(file.relative_to(path)))
    if not files:
        raise InvalidData(f"`{source.uri}` holds no data files", field=field, advice=f"use one of {_suffixes()}")
    of_split = [file for file in files if source.split in _words(file.relative_to(path))]
    if of_split:
        return of_split
    if any(_words(file.relative_to(path)) & {"train", "test", "validation"} for file in files):
        raise InvalidData(
            f"`{source.uri}` has no split `{source.split}`", field=field.removesuffix(".uri") + ".split",
            advice="name a split that its files are named after",
        )  # fmt: skip
    return files


def read_rows(files: list[Path]) -> Iterator[RawRow]:
    """Every row of every file. Broken rows come with their fault; a file that is broken as a whole is one such row."""
    for file in files:
        prefix = f"{file.name} " if len(files) > 1 else ""
        reader = _reader(file)
        if reader is None:
            raise ValueError(f"no reader for {file}")
        number = 0
        try:
            for number, content in reader(file):
                place = f"{prefix}row {number}"
                yield RawRow(place, fault=content) if isinstance(content, str) else RawRow(place, values=content)
        except (ValueError, csv.Error, EOFError, gzip.BadGzipFile) as error:  # pyarrow's errors are ValueErrors
            yield RawRow(f"{prefix}after row {number}", fault=f"the file cannot be read any further: {error}")


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _json_object(line)


def _json_object(line: bytes) -> dict[str, Any] | str:
    try:
        value = json.loads(line)
    except UnicodeDecodeError:
        return "is not UTF-8"
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    return value if isinstance(value, dict) else f"is {type(value).__name__}, not an object"


def _json_document(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """A list of objects, or an object with one list in it; a file that is really JSON lines is read as such."""
    with _open(path) as file:
        try:
            document = json.load(file)
        except ValueError:
            yield from _json_lines(path)
            return
    if isinstance(document, dict):
        lists = [value for value in document.values() if isinstance(value, list)]
        document = lists[0] if len(lists) == 1 else [document]
    for number, row in enumerate(document if isinstance(document, list) else [document], start=1):
        yield number, row if isinstance(row, dict) else f"is {type(row).__name__}, not an object"


def _delimited(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    csv.field_size_limit(_FIELD_LIMIT)
    delimiter = "\t" if ".tsv" in path.suffixes else ","
    with _open(path) as raw:
        lines = (line.decode("utf-8-sig" if number == 0 else "utf-8") for number, line in enumerate(raw))
        for number, row in enumerate(csv.DictReader(lines, delimiter=delimiter), start=1):
            if None in row:
                yield number, "has more values than there are columns"
            else:
                yield number, dict(row)


def _parquet(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    import pyarrow.parquet  # type: ignore[import-untyped]  # noqa: PLC0415 - only where a file needs it

    number = 0
    for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=_BATCH):
        for row in batch.to_pylist():
            number += 1
            yield number, row


def _text_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    with _open(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                try:
                    yield number, {"text": line.decode().rstrip("\n")}
                except UnicodeDecodeError:
                    yield number, "is not UTF-8"


_READERS: Final[dict[str, Reader]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".json": _json_document,
    ".csv": _delimited,
    ".tsv": _delimited,
    ".parquet": _parquet,
    ".txt": _text_lines,
}
_NOT_DATA: Final = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "requirements.txt"}


def _reader(path: Path) -> Reader | None:
    suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
    return _READERS.get(suffixes[-1]) if suffixes else None


def _open(path: Path) -> IO[bytes]:
    return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")  # type: ignore[return-value]


def _is_data(path: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in path.parts)
    return not hidden and path.name not in _NOT_DATA and _reader(path) is not None


def _words(path: Path) -> set[str]:
    """`data/train-00000-of-00002.parquet` is data, train, 00000, ..."""
    return set(path.as_posix().replace("/", "-").replace("_", "-").replace(".", "-").split("-"))


def _suffixes() -> str:
    return ", ".join(_READERS)
