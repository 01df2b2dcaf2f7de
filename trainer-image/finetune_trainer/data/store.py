"""The tokenised dataset on disk: two Arrow files, the tokenizer, and a receipt that says what they are."""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, ValidationError

from finetune_trainer.contract import PreparedData
from finetune_trainer.data.encode import IGNORED, Encoded
from finetune_trainer.errors import InvalidData
from finetune_trainer.workspace import Paths

_SCHEMA: Final = pa.schema([("input_ids", pa.list_(pa.int32())), ("labels", pa.list_(pa.int32()))])
_RECEIPT: Final = "prepared.json"
_TRAIN: Final = "train.arrow"
_EVAL: Final = "eval.arrow"
_BATCH: Final = 1000


@dataclass(frozen=True)
class PreparedDataset:
    """Rows to train on and rows held out: `datasets.Dataset`s with `input_ids` and `labels` (-100 = no loss)."""

    train: Any
    eval: Any
    digest: str


class Receipt(BaseModel):
    """What a dataset folder holds. Equal keys were made from equal inputs."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    key: str
    prepared: PreparedData


def read_receipt(paths: Paths) -> Receipt | None:
    try:
        return Receipt.model_validate_json((paths.dataset_dir / _RECEIPT).read_bytes())
    except (OSError, ValidationError):
        return None


def write_receipt(folder: Path, receipt: Receipt) -> None:
    (folder / _RECEIPT).write_text(receipt.model_dump_json(by_alias=True))


def load_prepared(paths: Paths) -> PreparedDataset:
    """The workspace's dataset, memory-mapped. Raises `InvalidData` when there is none, or not all of it."""
    from datasets import Dataset  # noqa: PLC0415 - heavy, and only training needs it

    receipt = read_receipt(paths)
    if receipt is None:
        raise InvalidData(f"{paths.dataset_dir} holds no prepared dataset", advice="run the prepare stage first")
    train = Dataset.from_file(str(paths.dataset_dir / _TRAIN))
    held_out = Dataset.from_file(str(paths.dataset_dir / _EVAL))
    expected = (receipt.prepared.train_rows, receipt.prepared.eval_rows)
    if (len(train), len(held_out)) != expected:
        raise InvalidData(f"{paths.dataset_dir} holds {(len(train), len(held_out))} rows, not {expected}")
    return PreparedDataset(train, held_out, receipt.prepared.digest)


class RowsWriter:
    """Appends rows to an Arrow file, a batch at a time."""

    def __init__(self, path: Path) -> None:
        self._stream = pa.ipc.new_stream(path, _SCHEMA)
        self._rows: list[Encoded] = []

    def add(self, row: Encoded) -> None:
        self._rows.append(row)
        if len(self._rows) == _BATCH:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._stream.close()

    def _flush(self) -> None:
        columns = [[row.input_ids for row in self._rows], [row.labels for row in self._rows]]
        arrays = [pa.array(column, pa.list_(pa.int32())) for column in columns]
        self._stream.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
        self._rows = []


@contextmanager
def writing_rows(path: Path) -> Iterator[RowsWriter]:
    writer = RowsWriter(path)
    try:
        yield writer
    finally:
        writer.close()


def divide(all_rows: Path, held_out: list[bool], folder: Path) -> str:
    """Copies the rows into the train and eval files; returns the digest over the rows in that order."""
    digest = RowsDigest()
    for name, wanted in ((_TRAIN, False), (_EVAL, True)):
        digest.begin(name)
        with writing_rows(folder / name) as writer:
            for row, is_out in zip(_rows(all_rows), held_out, strict=True):
                if is_out is wanted:
                    writer.add(row)
                    digest.add(row)
    return digest.hex()


class RowsDigest:
    """sha256 over rows: of each, its length, its ids as little-endian int32, and a byte a token for the loss mask."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"finetune-rows-v1")

    def begin(self, name: str) -> None:
        self._hash.update(name.encode())

    def add(self, row: Encoded) -> None:
        numbers = array("i", [len(row.input_ids), *row.input_ids])
        self._hash.update(numbers.tobytes())
        self._hash.update(bytes(label != IGNORED for label in row.labels))

    def hex(self) -> str:
        return self._hash.hexdigest()


def _rows(path: Path) -> Iterable[Encoded]:
    with pa.memory_map(str(path)) as source, pa.ipc.open_stream(source) as stream:
        for batch in stream:
            for ids, labels in zip(batch.column(0).to_pylist(), batch.column(1).to_pylist(), strict=True):
                yield Encoded(ids, labels, truncated=False)
