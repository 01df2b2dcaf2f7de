"""The registry of row formats: a new one is a new file and a line here."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

from finetune_trainer.contract import DataFormat
from finetune_trainer.data.formats.base import RowFormat
from finetune_trainer.data.formats.chat import Chat
from finetune_trainer.data.formats.prompt_completion import PromptCompletion
from finetune_trainer.data.formats.text import Text

FORMATS: Final[tuple[RowFormat, ...]] = (Chat(), PromptCompletion(), Text())
"""In the order in which `auto` tries them."""


def named(name: DataFormat) -> RowFormat:
    """The format with this name; `auto` is not one."""
    return next(form for form in FORMATS if form.name is name)


def detect(columns: Collection[str], mapping: Mapping[str, str]) -> RowFormat | None:
    """The first format whose columns are all there, under their own names or those they are mapped to."""
    for form in FORMATS:
        if all(mapping.get(column, column) in columns for column in form.columns):
            return form
    return None


def described() -> str:
    """The formats and their columns, for a message."""
    return "; ".join(f"{form.name} ({', '.join(form.columns)})" for form in FORMATS)
