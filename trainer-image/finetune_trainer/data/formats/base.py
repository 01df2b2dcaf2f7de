"""What a row of each format becomes, and how it turns into text of which a part is learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from finetune_trainer.contract import DataFormat

Row = Mapping[str, Any]


class InvalidRow(Exception):  # noqa: N818 - a verdict on a row, not a fault of the program
    """Why a row cannot be trained on; the message is for the person who wrote it."""


@dataclass(frozen=True)
class Message:
    role: str
    content: str


@dataclass(frozen=True)
class Rendered:
    """A row as the model sees it. Only characters within `learned` (start, end) count for the loss."""

    text: str
    learned: tuple[tuple[int, int], ...]
    special_tokens: bool
    """Whether the tokenizer still has to add the tokens that begin and end a document."""


class Template(Protocol):
    """The model's chat template."""

    @property
    def exists(self) -> bool: ...

    def render(self, messages: list[Message], *, answer_follows: bool) -> str: ...


class RowFormat(Protocol):
    """One way to write training data."""

    @property
    def name(self) -> DataFormat: ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that every row must have, by the format's own names."""
        ...

    def check(self, row: Row) -> None:
        """Raises `InvalidRow`."""
        ...

    def render(self, row: Row, template: Template) -> Rendered:
        """A checked row as text. Raises `InvalidRow` when the template refuses it."""
        ...


def text_of(row: Row, column: str) -> str:
    """The column's text. Raises `InvalidRow` when it is missing, empty or no text."""
    value = row.get(column)
    if value is None:
        raise InvalidRow(f"`{column}` is missing")
    if not isinstance(value, str):
        raise InvalidRow(f"`{column}` is {type(value).__name__}, not text")
    if not value.strip():
        raise InvalidRow(f"`{column}` is empty")
    return value
