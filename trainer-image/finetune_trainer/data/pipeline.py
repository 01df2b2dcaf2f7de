"""From the job's datasets to a tokenised dataset in the workspace."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Final

from finetune_trainer.checksums import file_sha256, text_sha256
from finetune_trainer.contract import DataFormat, DatasetSource, PreparedData, RunConfig
from finetune_trainer.data.encode import ChatTemplate, Encoded, Encoder
from finetune_trainer.data.formats import described, detect, named
from finetune_trainer.data.formats.base import InvalidRow, Rendered, Row, RowFormat
from finetune_trainer.data.rows import RawRow, data_files, read_rows
from finetune_trainer.data.split import fingerprint, held_out
from finetune_trainer.data.statistics import Lengths
from finetune_trainer.data.store import (
    Receipt,
    RowsWriter,
    divide,
    read_receipt,
    write_receipt,
    writing_rows,
)
from finetune_trainer.errors import InvalidConfig, InvalidData
from finetune_trainer.model import fetch_model, load_tokenizer, model_revision
from finetune_trainer.uris import Address, Notify, download_folder, fetch
from finetune_trainer.workspace import Paths, replacing_folder

_BATCH: Final = 1000
_REASONS: Final = 5
_SAMPLE: Final = 100
"""Rows looked at to detect a format."""
_LONGEST_REASON: Final = 160
_RECIPE: Final = "rows-3"
"""Changes when the same inputs would be tokenised otherwise."""


@dataclass(frozen=True)
class Fetched:
    """A dataset as local files."""

    source: DatasetSource
    field: str
    files: list[Path]
    sha256: str


@dataclass
class RowCounts:
    """What came of the rows so far."""

    valid: int = 0
    invalid: int = 0
    truncated: int = 0
    reasons: list[str] = field(default_factory=list)
    lengths: Lengths = field(default_factory=Lengths)
    fingerprints: list[bytes] = field(default_factory=list)

    def refuse(self, place: str, reason: str) -> None:
        self.invalid += 1
        if len(self.reasons) < _REASONS:
            self.reasons.append(f"{place}: {reason}"[:_LONGEST_REASON])

    def accept(self, print_: bytes, row: Encoded) -> None:
        self.valid += 1
        self.truncated += row.truncated
        self.lengths.add(len(row.input_ids))
        self.fingerprints.append(print_)


@dataclass(frozen=True)
class TokenizeContext:
    """What every dataset of the job is tokenised with."""

    encoder: Encoder
    writer: RowsWriter
    counts: RowCounts
    notify: Notify


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
    notify(f"reading {source.uri}")
    path = fetch(address, paths, download_folder(paths, address), notify).path
    files = data_files(path, source, address.field)
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
    all_rows = folder / "all.arrow"
    with writing_rows(all_rows) as writer:
        context = TokenizeContext(encoder, writer, counts, notify)
        for dataset, form in zip(datasets, formats, strict=True):
            _check_template(form, tokenizer)
            _tokenise(dataset, form, context)
    _judge(counts, config)
    out = held_out(counts.fingerprints, config.data.validation_fraction)
    digest = divide(all_rows, out, folder)
    all_rows.unlink()
    tokenizer.save_pretrained(folder / paths.tokenizer_dir.name)
    return PreparedData(
        format=formats[0].name,
        rows=counts.valid,
        train_rows=out.count(False),
        eval_rows=out.count(True),
        invalid_rows=counts.invalid,
        invalid_reasons=tuple(counts.reasons),
        tokens=counts.lengths.total,
        truncated_rows=counts.truncated,
        lengths=counts.lengths.percentiles(),
        digest=digest,
        source_digests=tuple(dataset.sha256 for dataset in datasets),
    )


def _format_of(dataset: Fetched) -> RowFormat:
    source = dataset.source
    form = _detected(dataset) if source.format is DataFormat.AUTO else named(source.format)
    for column in source.columns:
        if column not in form.columns:
            raise InvalidConfig(
                f"format {form.name} has no column `{column}`",
                field=f"{dataset.field.removesuffix('.uri')}.columns.{column}",
                advice=f"map {', '.join(form.columns)}",
            )
    return form


def _detected(dataset: Fetched) -> RowFormat:
    """By the columns of the first rows. A dataset without readable rows is told by what is wrong with them."""
    values = [row.values for row in islice(read_rows(dataset.files, dataset.field), _SAMPLE) if row.values is not None]
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


def _tokenise(dataset: Fetched, form: RowFormat, context: TokenizeContext) -> None:
    counts = context.counts
    template = ChatTemplate(context.encoder.tokenizer)
    rows = read_rows(dataset.files, dataset.field)
    while batch := list(islice(rows, _BATCH)):
        rendered: list[tuple[str, bytes, Rendered]] = []
        for raw in batch:
            try:
                row = _mapped(raw, form, dataset.source)
                form.check(row)
                rendered.append((raw.place, fingerprint(dict(row)), form.render(row, template)))
            except InvalidRow as reason:
                counts.refuse(raw.place, str(reason))
        verdicts = context.encoder.encode([text for _, _, text in rendered])
        for (place, print_, _), verdict in zip(rendered, verdicts, strict=True):
            if isinstance(verdict, InvalidRow):
                counts.refuse(place, str(verdict))
            else:
                context.writer.add(verdict)
                counts.accept(print_, verdict)
        context.notify(
            f"tokenising: {counts.valid:,} rows, {counts.lengths.total:,} tokens, {counts.invalid:,} invalid"
        )


def _mapped(raw: RawRow, form: RowFormat, source: DatasetSource) -> Row:
    """The row's values by the format's own names. Raises `InvalidRow` for a row that its file has broken."""
    if raw.values is None:
        raise InvalidRow(raw.fault or "is broken")
    found = {column: raw.values.get(source.columns.get(column, column)) for column in form.columns}
    return {column: value for column, value in found.items() if value is not None}


def _judge(counts: RowCounts, config: RunConfig) -> None:
    total = counts.valid + counts.invalid
    where = "spec.datasets[0].uri" if len(config.datasets) == 1 else "spec.datasets"
    tolerance = config.data.invalid_tolerance_percent
    reasons = "; ".join(counts.reasons)
    if total and counts.invalid / total * 100 > tolerance:
        raise InvalidData(
            f"{counts.invalid:,} of {total:,} rows are invalid ({counts.invalid / total:.1%}), "
            f"more than the {tolerance:g} % tolerated: {reasons}",
            field=where,
            advice="fix the rows, name the columns in spec.datasets[].columns, "
            "or raise spec.data.invalidTolerancePercent",
        )
    if not counts.valid:
        raise InvalidData(
            f"there are no rows to train on{': ' + reasons if reasons else ''}",
            field=where,
            advice="add rows to the dataset",
        )
