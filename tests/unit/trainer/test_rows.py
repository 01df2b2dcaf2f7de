"""Files of every kind become rows; what is broken in them becomes a reason, never a crash."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest

from finetune_trainer.contract import DatasetSource
from finetune_trainer.data.rows import RawRow, data_files, read_rows
from finetune_trainer.errors import InvalidData

ROWS = [{"text": "one"}, {"text": 'zwö, "drei"\nfour'}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def read(file: Path) -> list[RawRow]:
    return list(read_rows([file]))


def written(file: Path) -> Path:
    match "".join(file.suffixes):
        case ".jsonl":
            file.write_text(LINES)
        case ".jsonl.gz":
            file.write_bytes(gzip.compress(LINES.encode()))
        case ".json":
            file.write_text(json.dumps({"version": 1, "data": ROWS}))
        case ".csv":
            file.write_text('\ufefftext\none\n"zwö, ""drei""\nfour"\n')
        case ".parquet":
            pyarrow.parquet.write_table(pa.Table.from_pylist(ROWS), file)
    return file


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".json", ".csv", ".parquet"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    assert [row.values for row in read(written(tmp_path / f"rows{suffix}"))] == ROWS


def test_a_broken_line_is_one_invalid_row_with_its_line_number(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_bytes(b'{"text": "a"}\n\n{"text": \n[1]\n{"text": "\xff"}\n{"text": "b"}\n')
    rows = read(file)
    assert [row.place for row in rows] == ["row 1", "row 3", "row 4", "row 5", "row 6"]
    faults = [row.fault for row in rows if row.fault]
    assert faults[0].startswith("is not JSON")
    assert faults[1:] == ["is list, not an object", "is not UTF-8"]


@pytest.mark.parametrize("name", ["cut.parquet", "cut.jsonl.gz"])
def test_a_file_that_is_cut_off_is_an_invalid_row(tmp_path: Path, name: str) -> None:
    whole = written(tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    (last,) = [row for row in read(tmp_path / name) if row.fault]
    assert "cannot be read any further" in str(last.fault)


def test_a_csv_row_with_too_many_values_is_invalid(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,completion\na,b,c\nd,e\n")
    assert [row.fault for row in read(tmp_path / "rows.csv")] == ["has more values than there are columns", None]


def test_rows_of_several_files_are_told_apart(tmp_path: Path) -> None:
    files = [written(tmp_path / "a.jsonl"), written(tmp_path / "b.jsonl")]
    assert [row.place for row in read_rows(files)] == [
        "a.jsonl row 1", "a.jsonl row 2", "b.jsonl row 1", "b.jsonl row 2",
    ]  # fmt: skip


def test_a_folder_gives_the_files_of_the_split(tmp_path: Path) -> None:
    for name in ("data/test-0.jsonl", "data/train-1.jsonl", "data/train-0.jsonl", ".cache/train.jsonl", "README.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(LINES)
    found = data_files(tmp_path, DatasetSource(uri="file:///x", split="train"), "spec.datasets[0].uri")
    assert [file.name for file in found] == ["train-0.jsonl", "train-1.jsonl"]


def test_a_folder_without_names_of_splits_is_read_whole(tmp_path: Path) -> None:
    written(tmp_path / "one.jsonl")
    written(tmp_path / "two.csv")
    found = data_files(tmp_path, DatasetSource(uri="file:///x"), "spec.datasets[0].uri")
    assert [file.name for file in found] == ["one.jsonl", "two.csv"]


def test_a_split_that_does_not_exist_is_named(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl")
    with pytest.raises(InvalidData, match="no split `dev`") as error:
        data_files(tmp_path, DatasetSource(uri="file:///x", split="dev"), "spec.datasets[2].uri")
    assert error.value.field == "spec.datasets[2].split"


def test_a_file_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.docx").touch()
    with pytest.raises(InvalidData, match=r"cannot read `rows\.docx`"):
        data_files(tmp_path / "rows.docx", DatasetSource(uri="file:///x"), "spec.datasets[0].uri")
