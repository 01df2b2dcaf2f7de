"""`{"text": "..."}`: a document; all of it is learned, in several rows when it is long."""

from __future__ import annotations

from finetune_trainer.contract import DataFormat
from finetune_trainer.data.formats.base import Rendered, Row, Template, text_of


class Text:
    name = DataFormat.TEXT
    columns = ("text",)
    optional = ()

    def check(self, row: Row) -> None:
        text_of(row, "text")

    def render(self, row: Row, template: Template) -> Rendered:
        del template
        text = text_of(row, "text")
        return Rendered(text, ((0, len(text)),), special_tokens=True, in_pieces=True)
