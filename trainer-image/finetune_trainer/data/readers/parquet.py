"""`.parquet`, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from finetune_trainer.data.readers.base import DAMAGED, Content, Records, UnreadableError

_BATCH: Final = 512


def parquet(path: Path) -> Records:
    import pyarrow as pa  # type: ignore[import-untyped]  # noqa: PLC0415 - only where a file needs it
    import pyarrow.parquet  # type: ignore[import-untyped]  # noqa: PLC0415

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
            for batch in file.iter_batches(batch_size=_BATCH, use_threads=False):
                for row in _rows(batch):
                    number += 1
                    yield number, row
    except pa.ArrowException as error:
        raise UnreadableError(str(error), DAMAGED) from error
    except OSError as error:
        if error.errno is not None:  # the disk's fault, not the file's
            raise
        raise UnreadableError(str(error), DAMAGED) from error


def _rows(batch: Any) -> Iterator[Content]:
    try:
        yield from batch.to_pylist()
    except UnicodeDecodeError:
        for index in range(batch.num_rows):
            try:
                yield from batch.slice(index, 1).to_pylist()
            except UnicodeDecodeError:
                yield "is not UTF-8"
