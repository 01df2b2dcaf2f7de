"""Files of every kind become rows; what is broken in them becomes a reason, never a crash."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet  # type: ignore[import-untyped]
import pytest

from finetune_trainer.contract import DatasetSource, SampleBy
from finetune_trainer.data.rows import RawRow, data_files, read_rows
from finetune_trainer.errors import InvalidData

ROWS = [{"text": "one"}, {"text": 'zwö, "drei"\nfour'}]
CSV = 'text\none\n"zwö, ""drei""\nfour"\n'
FIELD = "spec.datasets[0].uri"
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)


def read(file: Path) -> list[RawRow]:
    return list(read_rows([file], FIELD))


def unreadable(file: Path) -> InvalidData:
    with pytest.raises(InvalidData) as refusal:
        read(file)
    assert refusal.value.field == FIELD
    return refusal.value


def written(file: Path) -> Path:
    match "".join(file.suffixes):
        case ".jsonl":
            file.write_text(LINES)
        case ".jsonl.gz":
            file.write_bytes(gzip.compress(LINES.encode()))
        case ".json":
            file.write_text(json.dumps({"version": 1, "data": ROWS}))
        case ".csv":
            file.write_text(CSV)
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
    assert [row.place for row in rows] == ["line 1", "line 3", "line 4", "line 5", "line 6"]
    faults = [row.fault for row in rows if row.fault]
    assert faults[0].startswith("is not JSON")
    assert faults[1] == "is list, not an object"
    assert faults[2].startswith("is not UTF-8 (byte 0xff)")


def test_one_row_in_another_encoding_is_one_invalid_row(tmp_path: Path) -> None:
    lines = [json.dumps({"text": str(number)}).encode() for number in range(10_000)]
    lines[299] = '{"text": "café"}'.encode("latin-1")
    (tmp_path / "rows.jsonl").write_bytes(b"\n".join(lines))
    rows = read(tmp_path / "rows.jsonl")
    (fault,) = [row for row in rows if row.fault]
    assert (len(rows), fault.place) == (10_000, "line 300")
    assert str(fault.fault) == (
        "is not UTF-8 (byte 0xe9): looks like latin-1/Windows-1252, convert the file with "
        "`iconv -f WINDOWS-1252 -t UTF-8`"
    )


def test_letters_that_are_no_western_accents_are_not_taken_for_them(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_bytes("привет".encode("cp1251"))
    assert "iconv -f ITS-ENCODING" in str(read(tmp_path / "rows.txt")[0].fault)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv"])
def test_a_byte_order_mark_says_the_encoding(tmp_path: Path, encoding: str, name: str) -> None:
    contents = {"rows.jsonl": LINES, "rows.json": json.dumps(ROWS), "rows.csv": CSV}
    (tmp_path / name).write_bytes(contents[name].encode(encoding))
    assert [row.values for row in read(tmp_path / name)] == ROWS


def test_big_endian_utf_16_is_read_by_its_mark(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"\xfe\xff" + CSV.encode("utf-16-be"))
    assert [row.values for row in read(tmp_path / "rows.csv")] == ROWS


@pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE"])
def test_utf_16_without_a_mark_is_named(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "rows.csv").write_bytes(CSV.encode(encoding))
    error = unreadable(tmp_path / "rows.csv")
    assert error.message == f"`rows.csv` cannot be read at all: it looks like {encoding} without a byte-order mark"
    assert error.advice == f"convert it with `iconv -f {encoding} -t UTF-8 rows.csv`"


def test_a_pointer_of_git_lfs_is_not_taken_for_text(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    assert "git lfs pull" in str(unreadable(tmp_path / "rows.txt").advice)


@pytest.mark.parametrize("suffix", ["jsonl", "txt", "csv", "json"])
def test_a_compressed_file_that_is_cut_off_is_refused_with_the_line(tmp_path: Path, suffix: str) -> None:
    values = [{"text": f"{number * 7919 % 50_021} words"} for number in range(50_000)]
    lines = "".join(json.dumps(value) + "\n" for value in values)
    others = {"json": json.dumps(values, indent=0), "csv": "text\n" + lines.replace('"', "")}
    text = {**others, "txt": lines.replace("\n", "\n\n")}.get(suffix, lines)
    whole = gzip.compress(text.encode())
    (tmp_path / f"rows.{suffix}.gz").write_bytes(whole[: len(whole) // 3])
    error = unreadable(tmp_path / f"rows.{suffix}.gz")
    assert re.match(rf"`rows\.{suffix}\.gz` cannot be read beyond (line|row) \d+,\d+: ", error.message)
    assert "end-of-stream" in error.message
    assert error.advice == "it is cut off or damaged: write or upload it again"


def test_a_compressed_file_with_a_wrong_checksum_is_refused(tmp_path: Path) -> None:
    whole = bytearray(gzip.compress(LINES.encode()))
    whole[-8] ^= 1
    (tmp_path / "rows.jsonl.gz").write_bytes(whole)
    assert "CRC" in unreadable(tmp_path / "rows.jsonl.gz").message


def test_parquet_without_its_end_is_refused(tmp_path: Path) -> None:
    whole = written(tmp_path / "cut.parquet").read_bytes()
    (tmp_path / "cut.parquet").write_bytes(whole[: len(whole) // 2])
    assert unreadable(tmp_path / "cut.parquet").message.startswith("`cut.parquet` cannot be read at all: ")


def test_parquet_with_a_broken_page_is_refused_with_the_row(tmp_path: Path) -> None:
    rows = [{"text": f"{number:08}" * 20} for number in range(5_000)]
    file = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), file, row_group_size=1000, use_dictionary=False)
    whole = bytearray(file.read_bytes())
    place = whole.index(b"00003000") - 200
    whole[place : place + 400] = b"\xff" * 400
    file.write_bytes(whole)
    assert unreadable(file).message.startswith("`rows.parquet` cannot be read beyond row ")


def test_a_json_document_that_breaks_midway_is_refused_with_the_line(tmp_path: Path) -> None:
    text = json.dumps([{"text": str(number)} for number in range(10_000)], indent=0)
    (tmp_path / "rows.json").write_text(text.replace('"5000"', "5000 x"))
    error = unreadable(tmp_path / "rows.json")
    assert error.message.startswith(
        "`rows.json` cannot be read beyond row 5,000: it is not JSON in what begins at line"
    )
    (tmp_path / "rows.json").write_text(text[:-40])
    assert "cannot be read beyond row 9,99" in unreadable(tmp_path / "rows.json").message


def test_a_json_document_may_be_an_object_a_list_or_really_lines(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    for text in (json.dumps(ROWS), json.dumps(ROWS, indent=2), LINES, json.dumps({"rows": ROWS, "n": 1}, indent=1)):
        file.write_text(text)
        assert [row.values for row in read(file)] == ROWS
    file.write_text('{\n"a": 1,')
    assert "it is not JSON" in unreadable(file).message


def test_a_long_json_list_is_read_piece_by_piece(tmp_path: Path) -> None:
    rows: list[object] = [{"text": 'é[]{},"' * 3000, "id": number} for number in range(200)]
    (tmp_path / "rows.json").write_text(json.dumps([*rows, 12]))
    *found, last = read(tmp_path / "rows.json")
    assert [row.values for row in found] == rows
    assert (last.place, last.fault) == ("row 201", "is int, not an object")


def test_an_unbalanced_quote_is_a_fault_of_its_row_alone(tmp_path: Path) -> None:
    lines = [f"question {number},answer {number}" for number in range(10_000)]
    lines[298] = 'question 298,"answer 298'
    lines[500] = '"question" 500,answer 500'
    lines[600] = '"question\n600",answer 600'
    (tmp_path / "rows.csv").write_text("\n".join(["prompt,completion", *lines]))
    rows = read(tmp_path / "rows.csv")
    assert [row.place for row in rows if row.fault] == ["line 300", "line 502"]
    assert len(rows) == 10_000
    assert rows[600].values == {"prompt": "question\n600", "completion": "answer 600"}
    assert rows[601].place == "line 604"


def test_a_csv_row_has_as_many_values_as_the_header(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("prompt,completion\na,b,c\n\nd\ne,f\n")
    assert [(row.place, row.fault) for row in read(tmp_path / "rows.csv")] == [
        ("line 2", "has 3 values, more than the 2 columns of the header"),
        ("line 4", "has 1 values, fewer than the 2 columns of the header"),
        ("line 5", None),
    ]


def test_a_csv_row_in_another_encoding_is_one_invalid_row(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_bytes(b"prompt,completion\na,b\nc,caf\xe9\nd,e\n")
    assert [bool(row.fault) for row in read(tmp_path / "rows.csv")] == [False, True, False]


@pytest.mark.parametrize("header", ["a,a", '"a,b'])
def test_a_csv_header_that_is_none_is_refused(tmp_path: Path, header: str) -> None:
    (tmp_path / "rows.csv").write_text(f"{header}\n1,2\n")
    assert "cannot be read at all" in unreadable(tmp_path / "rows.csv").message


TEXT = "\n\nfirst line\r\nsecond line\n   \n\nthird line\nfourth line"


@pytest.mark.parametrize(
    ("sample_by", "expected"),
    [
        ("paragraph", [("line 3", "first line\nsecond line"), ("line 7", "third line\nfourth line")]),
        ("document", [("line 3", "first line\nsecond line\n   \n\nthird line\nfourth line")]),
        (
            "line",
            [("line 3", "first line"), ("line 4", "second line"), ("line 7", "third line"), ("line 8", "fourth line")],
        ),
    ],
)
def test_of_a_text_file_a_document_is_what_the_job_says(
    tmp_path: Path, sample_by: str, expected: list[tuple[str, str]]
) -> None:
    (tmp_path / "rows.txt").write_bytes(TEXT.encode())
    rows = [(row.place, row.values) for row in read_rows([tmp_path / "rows.txt"], FIELD, SampleBy(sample_by))]
    assert rows == [(place, {"text": text}) for place, text in expected]


def test_a_document_without_an_end_is_read_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "rows.txt").write_text("a line of text\n" * 200_000)
    rows = read(tmp_path / "rows.txt")
    assert len(rows) == 3
    assert "\n".join(str((row.values or {})["text"]) for row in rows) + "\n" == "a line of text\n" * 200_000


def test_rows_of_several_files_are_told_apart(tmp_path: Path) -> None:
    files = [written(tmp_path / "a.jsonl"), written(tmp_path / "b.jsonl")]
    assert [row.place for row in read_rows(files, FIELD)] == [
        "a.jsonl line 1", "a.jsonl line 2", "b.jsonl line 1", "b.jsonl line 2",
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


def test_data_in_a_folder_that_nothing_reads_is_not_left_out_in_silence(tmp_path: Path) -> None:
    written(tmp_path / "train-0.jsonl")
    (tmp_path / "train-1.jsonl.zst").touch()
    (tmp_path / "README.md").touch()
    with pytest.raises(InvalidData, match=r"cannot read `train-1\.jsonl\.zst` of `file:///x`"):
        data_files(tmp_path, DatasetSource(uri="file:///x"), FIELD)


def test_a_split_that_does_not_exist_is_named(tmp_path: Path) -> None:
    written(tmp_path / "train.jsonl")
    with pytest.raises(InvalidData, match="no split `dev`") as error:
        data_files(tmp_path, DatasetSource(uri="file:///x", split="dev"), "spec.datasets[2].uri")
    assert error.value.field == "spec.datasets[2].split"


def test_a_file_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.docx").touch()
    with pytest.raises(InvalidData, match=r"cannot read `rows\.docx`"):
        data_files(tmp_path / "rows.docx", DatasetSource(uri="file:///x"), "spec.datasets[0].uri")
