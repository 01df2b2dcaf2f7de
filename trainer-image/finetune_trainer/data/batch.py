"""A batch of rows becomes tokens: the part of prepare that many processes can do at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]

from finetune_trainer.data.chat_template import ChatTemplate
from finetune_trainer.data.encode import Encoder
from finetune_trainer.data.formats.base import InvalidRow, Rendered, Row, RowFormat
from finetune_trainer.data.rows import RawRow
from finetune_trainer.data.split import fingerprint
from finetune_trainer.data.statistics import RowCounts
from finetune_trainer.data.store import record_batch


@dataclass(frozen=True)
class Tokenized:
    """What a batch became: the rows as the store keeps them, and what there is to say of them."""

    rows: pa.RecordBatch
    counts: RowCounts


@dataclass(frozen=True)
class BatchTokenizer:
    """Knows all that a process needs to tokenise rows of one dataset."""

    encoder: Encoder
    form: RowFormat
    columns: Mapping[str, str]
    template: ChatTemplate = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "template", ChatTemplate(self.encoder.tokenizer))

    def __call__(self, rows: list[RawRow]) -> Tokenized:
        counts = RowCounts()
        rendered: list[tuple[str, bytes, Rendered]] = []
        for raw in rows:
            try:
                row = self._mapped(raw)
                self.form.check(row)
                rendered.append((raw.place, fingerprint(dict(row)), self.form.render(row, self.template)))
            except InvalidRow as reason:
                counts.refuse(raw.place, str(reason))
        verdicts = self.encoder.encode([text for _, _, text in rendered])
        kept = []
        for (place, print_, text), verdict in zip(rendered, verdicts, strict=True):
            if isinstance(verdict, InvalidRow):
                counts.refuse(place, str(verdict))
                continue
            counts.unlearned_answers += text.unlearned_answers
            for encoded in verdict:
                kept.append((print_, encoded))
                counts.accept(encoded)
        return Tokenized(record_batch(kept), counts)

    def _mapped(self, raw: RawRow) -> Row:
        """The row's values by the format's own names. Raises `InvalidRow` for a row that its file has broken."""
        if raw.values is None:
            raise InvalidRow(raw.fault or "is broken")
        names = (*self.form.columns, *self.form.optional)
        found: dict[str, Any] = {name: raw.values.get(self.columns.get(name, name)) for name in names}
        return {name: value for name, value in found.items() if value is not None}
