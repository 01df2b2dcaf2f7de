"""From the job's datasets to a tokenised dataset in the workspace."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Final

from finetune_trainer.checksums import file_sha256, text_sha256
from finetune_trainer.contract import DataFormat, DatasetSource, PreparedData, RunConfig
from finetune_trainer.data.batch import BatchTokenizer
from finetune_trainer.data.encode import Encoder
from finetune_trainer.data.formats import described, detect, named
from finetune_trainer.data.formats.base import RowFormat
from finetune_trainer.data.parallel import cores, in_processes
from finetune_trainer.data.rows import RawRow, data_files, part_files, read_rows
from finetune_trainer.data.statistics import RowCounts
from finetune_trainer.data.store import Receipt, divide, read_receipt, write_receipt, writing_rows
from finetune_trainer.data.verdict import judge
from finetune_trainer.errors import InvalidConfig, InvalidData
from finetune_trainer.model import fetch_model, load_tokenizer, model_revision
from finetune_trainer.uris import Address, Notify, download_folder, fetch
from finetune_trainer.uris.address import is_repository
from finetune_trainer.workspace import Paths, replacing_folder

_SAMPLE: Final = 100
"""Rows looked at to detect a format."""
_RECIPE: Final = "rows-3"
"""Changes when the same inputs would be tokenised otherwise."""


@dataclass(frozen=True)
class Fetched:
    """A dataset as local files."""

    source: DatasetSource
    field: str
    files: list[Path]
    sha256: str

    def rows(self) -> Iterator[RawRow]:
        return read_rows(self.files, self.field, self.source.sample_by)


def prepare_dataset(config: RunConfig, paths: Paths, notify: Notify) -> PreparedData:
    """Tokenises the job's datasets into the workspace; quick when they are there already.

    Raises `InvalidData` (too many invalid rows, none at all), `NotFound`, `InvalidConfig` or `CannotWrite`.
    """
    datasets = [_fetched(source, index, paths, notify) for index, source in enumerate(config.datasets)]
    fetch_model(config, paths, notify)
    key = _key(config, datasets, model_revision(config, paths))
    receipt = read_receipt(paths)
    if receipt is not None and receipt.key == key:
        notify(f"the dataset is prepared already: {receipt.prepared.rows:,} rows")
        return receipt.prepared
    with replacing_folder(paths.dataset_dir) as folder:
        prepared = _tokenised(config, paths, datasets, folder, notify)
        write_receipt(folder, Receipt(key=key, prepared=prepared))
    return prepared


def _fetched(source: DatasetSource, index: int, paths: Paths, notify: Notify) -> Fetched:
    address = Address.of_dataset(source, index, paths)
    is_part = is_repository(address)
    if source.config is not None and not is_part:
        raise InvalidConfig(
            f"`{source.uri}` has no configurations: only a dataset of the Hub has",
            field=address.sibling("config"),
            advice="remove it",
        )
    notify(f"reading {source.uri}")
    path = fetch(address, paths, download_folder(paths, address), notify).path
    files = part_files(path, source, address.field) if is_part else data_files(path, source, address.field)
    digests = [file_sha256(file) for file in files]
    return Fetched(source, address.field, files, digests[0] if len(digests) == 1 else text_sha256("\n".join(digests)))


def _key(config: RunConfig, datasets: list[Fetched], revision: str | None) -> str:
    """Names everything that the tokenised rows depend on."""
    training = config.training
    parts = [
        _RECIPE,
        config.model.uri,
        str(revision),
        training.model_dump_json(
            include={"objective", "max_sequence_length", "loss_on", "chat_template", "tokenizer_config"}
        ),
        config.data.model_dump_json(),
        *(part for dataset in datasets for part in (dataset.source.model_dump_json(), dataset.sha256)),
    ]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _tokenised(config: RunConfig, paths: Paths, datasets: list[Fetched], folder: Path, notify: Notify) -> PreparedData:
    notify("loading the tokenizer")
    tokenizer = load_tokenizer(config, paths)
    encoder = Encoder.of(tokenizer, config.training)
    formats = [_format_of(dataset) for dataset in datasets]
    counts = RowCounts()
    processes = cores(config.topology.processes_per_node)
    all_rows = folder / "all.arrow"
    with writing_rows(all_rows) as writer:
        for dataset, form in zip(datasets, formats, strict=True):
            _check_template(form, tokenizer)
            work = BatchTokenizer(encoder, form, dataset.source.columns)
            for done in in_processes(work, dataset.rows(), processes):
                writer.add(done.rows)
                counts.merge(done.counts)
                notify(
                    f"tokenising: {counts.valid:,} rows, {counts.lengths.total:,} tokens, {counts.invalid:,} invalid"
                )
    judge(counts, config)
    divided = divide(all_rows, config.data.validation_fraction, folder)
    all_rows.unlink()
    tokenizer.save_pretrained(folder / paths.tokenizer_dir.name)
    return PreparedData(
        format=formats[0].name,
        rows=counts.valid,
        train_rows=divided.train_rows,
        eval_rows=divided.eval_rows,
        invalid_rows=counts.invalid,
        invalid_reasons=tuple(counts.reasons),
        tokens=counts.lengths.total,
        learned_tokens=counts.learned_tokens,
        unlearned_answers=counts.unlearned_answers,
        truncated_rows=counts.truncated,
        cut_tokens=counts.cut_tokens,
        lengths=counts.lengths.percentiles(),
        digest=divided.digest,
        source_digests=tuple(dataset.sha256 for dataset in datasets),
    )


def _format_of(dataset: Fetched) -> RowFormat:
    source = dataset.source
    form = _detected(dataset) if source.format is DataFormat.AUTO else named(source.format)
    for column in source.columns:
        if column not in (*form.columns, *form.optional):
            raise InvalidConfig(
                f"format {form.name} has no column `{column}`",
                field=f"{dataset.field.removesuffix('.uri')}.columns.{column}",
                advice=f"map {', '.join((*form.columns, *form.optional))}",
            )
    return form


def _detected(dataset: Fetched) -> RowFormat:
    """By the columns of the first rows. A dataset without readable rows is told by what is wrong with them."""
    values = [row.values for row in islice(dataset.rows(), _SAMPLE) if row.values is not None]
    columns = sorted({column for row in values for column in row})
    form = detect(columns, dataset.source.columns)
    if form is None and values:
        raise InvalidData(
            f"no format fits the columns {', '.join(columns)}",
            field=dataset.field.removesuffix(".uri") + ".format",
            advice=f"map the columns of one of: {described()}",
        )
    return form or named(DataFormat.TEXT)


def _check_template(form: RowFormat, tokenizer: Any) -> None:
    if form.name is DataFormat.CHAT and not tokenizer.chat_template:
        raise InvalidConfig(
            "the model has no chat template, and the dataset holds chats",
            field="spec.training.chatTemplate",
            advice="set one, or fine-tune the model's instruct version",
        )
