"""Reads the rows of a dataset from files, one after the other, whatever the files are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from finetune_trainer.contract import DatasetSource, SampleBy
from finetune_trainer.data.readers import UnreadableError, reader_of, suffixes
from finetune_trainer.errors import InvalidData


@dataclass(frozen=True)
class RawRow:
    """A row as its file has it: its values, or what is wrong with it."""

    place: str
    """For a person: `line 12`, or `b.jsonl line 12` in a dataset of several files; `row 12` in files without lines."""
    values: dict[str, Any] | None = None
    fault: str | None = None


def data_files(path: Path, source: DatasetSource, field: str) -> list[Path]:
    """The files of the dataset, in the order of their names. Raises `InvalidData` when there is none to read.

    In a folder, files with the split's name in their path are taken where there are any.
    """
    if path.is_file():
        if reader_of(path) is None:
            raise InvalidData(f"cannot read `{path.name}`", field=field, advice=f"use one of {suffixes()}")
        return [path]
    everything = sorted(file for file in path.rglob("*") if file.is_file() and not _is_hidden(file.relative_to(path)))
    files = [file for file in everything if reader_of(file) is not None and file.name not in _NOT_DATA]
    if others := [file.relative_to(path).as_posix() for file in everything if file.suffix.lower() in _OTHER_DATA]:
        raise InvalidData(
            f"cannot read `{others[0]}` of `{source.uri}`" + (f" and {len(others) - 1} more" if others[1:] else ""),
            field=field,
            advice=f"write it as one of {suffixes()}, or remove it",
        )
    if not files:
        raise InvalidData(f"`{source.uri}` holds no data files", field=field, advice=f"use one of {suffixes()}")
    of_split = [file for file in files if source.split in _words(file.relative_to(path))]
    if of_split:
        return of_split
    if any(_words(file.relative_to(path)) & {"train", "test", "validation"} for file in files):
        raise InvalidData(
            f"`{source.uri}` has no split `{source.split}`", field=field.removesuffix(".uri") + ".split",
            advice="name a split that its files are named after",
        )  # fmt: skip
    return files


def part_files(folder: Path, source: DatasetSource, field: str) -> list[Path]:
    """All files of a folder that holds one split and nothing else. Raises `InvalidData` for one that nothing reads."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    for file in files:
        if reader_of(file) is None:
            raise InvalidData(
                f"cannot read `{file.relative_to(folder)}` of `{source.uri}`",
                field=field,
                advice=f"use a dataset in one of {suffixes()}",
            )
    return files


def read_rows(files: list[Path], field: str, sample_by: SampleBy = SampleBy.PARAGRAPH) -> Iterator[RawRow]:
    """Every row of every file; broken rows come with their fault.

    Raises `InvalidData` where the rest of a file cannot be read: nobody knows how many rows that is.
    """
    for file in files:
        prefix = f"{file.name} " if len(files) > 1 else ""
        reader = reader_of(file, sample_by)
        if reader is None:
            raise ValueError(f"no reader for {file}")
        number = 0
        try:
            for number, content in reader.records(file):
                place = f"{prefix}{reader.unit} {number}"
                yield RawRow(place, fault=content) if isinstance(content, str) else RawRow(place, values=content)
        except UnreadableError as error:
            where = f"beyond {reader.unit} {number:,}" if number else "at all"
            raise InvalidData(
                f"`{file.name}` cannot be read {where}: {error}", field=field, advice=error.advice
            ) from error


_NOT_DATA: Final = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "requirements.txt"}


_OTHER_DATA: Final = {
    *(".zst", ".bz2", ".xz", ".zip", ".tar", ".tgz", ".7z", ".arrow", ".feather", ".orc", ".avro", ".xlsx", ".pkl"),
}
"""Kinds of files that hold rows, and that nothing here reads: left out, they would be missed by nobody."""


def _is_hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def _words(path: Path) -> set[str]:
    """`data/train-00000-of-00002.parquet` is data, train, 00000, ..."""
    return set(path.as_posix().replace("/", "-").replace("_", "-").replace(".", "-").split("-"))
