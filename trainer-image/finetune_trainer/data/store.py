"""The tokenised dataset on disk: two Arrow files, the tokenizer, and a receipt that says what they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
from pydantic import BaseModel, ConfigDict, ValidationError

from finetune_trainer.contract import PreparedData
from finetune_trainer.data.encode import IGNORED, Encoded
from finetune_trainer.data.split import PRINT_BYTES, held_out_limit, is_held_out
from finetune_trainer.errors import InvalidData
from finetune_trainer.workspace import Paths

_TOKENS: Final = pa.list_(pa.int32())
_SCHEMA: Final = pa.schema([("input_ids", _TOKENS), ("labels", _TOKENS)])
_ALL_ROWS: Final = _SCHEMA.append(pa.field("fingerprint", pa.binary(PRINT_BYTES)))
_RECEIPT: Final = "prepared.json"
_TRAIN: Final = "train.arrow"
_EVAL: Final = "eval.arrow"


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
    """Appends batches of rows to an Arrow file."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._stream = pa.ipc.new_stream(path, schema)
        self._schema = schema
        self._is_empty = True

    def add(self, batch: pa.RecordBatch) -> None:
        if batch.num_rows:
            self._stream.write_batch(batch)
            self._is_empty = False

    def close(self) -> None:
        if self._is_empty:  # a stream has a batch, or `datasets` does not read it
            self._stream.write_batch(pa.RecordBatch.from_pylist([], schema=self._schema))
        self._stream.close()


def record_batch(rows: Sequence[tuple[bytes, Encoded]]) -> pa.RecordBatch:
    """Rows with their fingerprints, as the file of all rows keeps them."""
    ids = pa.array([row.input_ids for _, row in rows], _TOKENS)
    labels = pa.array([row.labels for _, row in rows], _TOKENS)
    prints = pa.array([print_ for print_, _ in rows], pa.binary(PRINT_BYTES))
    return pa.record_batch([ids, labels, prints], schema=_ALL_ROWS)


@contextmanager
def writing_rows(path: Path, schema: pa.Schema = _ALL_ROWS) -> Iterator[RowsWriter]:
    writer = RowsWriter(path, schema)
    try:
        yield writer
    finally:
        writer.close()


@dataclass(frozen=True)
class Divided:
    """How many rows went where, and the digest over them in that order."""

    train_rows: int
    eval_rows: int
    digest: str


def divide(all_rows: Path, fraction: float, folder: Path) -> Divided:
    """Copies the rows into the train and eval files, about `fraction` of them into the latter."""
    limit = held_out_limit(partial(_prints, all_rows), fraction)
    digest = RowsDigest()
    rows = {}
    for name, wanted in ((_TRAIN, False), (_EVAL, True)):
        digest.begin(name)
        rows[name] = 0
        with writing_rows(folder / name, _SCHEMA) as writer:
            for batch in _batches(all_rows):
                kept = batch.filter(pa.array(is_held_out(_prints_of(batch), limit) == wanted)).select([0, 1])
                writer.add(kept)
                digest.add(kept)
                rows[name] += kept.num_rows
    return Divided(rows[_TRAIN], rows[_EVAL], digest.hex())


class RowsDigest:
    """sha256 over rows: of each, its length, its ids as little-endian int32, and a byte a token for the loss mask."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256(b"finetune-rows-v1")

    def begin(self, name: str) -> None:
        self._hash.update(name.encode())

    def add(self, batch: pa.RecordBatch) -> None:
        ends = np.cumsum(batch.column(0).value_lengths().to_numpy(zero_copy_only=False))
        ids = batch.column(0).flatten().to_numpy().astype("<i4")
        mask = (batch.column(1).flatten().to_numpy() != IGNORED).astype(np.uint8)
        start = 0
        for end in ends.tolist():
            self._hash.update(np.int32(end - start).tobytes())
            self._hash.update(ids[start:end].tobytes())
            self._hash.update(mask[start:end].tobytes())
            start = end

    def hex(self) -> str:
        return self._hash.hexdigest()


def _prints(path: Path) -> Iterator[bytes]:
    return map(_prints_of, _batches(path))


def _prints_of(batch: pa.RecordBatch) -> bytes:
    column = batch.column(2)
    whole: bytes = column.buffers()[1].to_pybytes()
    return whole[column.offset * PRINT_BYTES : (column.offset + len(column)) * PRINT_BYTES]


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    """Not memory-mapped: pages of a file that is read once only crowd the pod's memory."""
    with pa.OSFile(str(path)) as source, pa.ipc.open_stream(source) as stream:
        yield from stream
