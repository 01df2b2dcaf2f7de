"""What a row of each format becomes, and how it turns into text of which a part is learned."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from finetune_trainer.contract import DataFormat

Row = Mapping[str, Any]
Spans = tuple[tuple[int, int], ...]
"""Parts of a text: the first character of each, and the one after its last."""


class InvalidRow(Exception):  # noqa: N818 - a verdict on a row, not a fault of the program
    """Why a row cannot be trained on; the message is for the person who wrote it."""


@dataclass(frozen=True)
class Conversation:
    """Messages as chat templates take them, and the tools that the assistant may call."""

    messages: tuple[dict[str, Any], ...]
    tools: tuple[dict[str, Any], ...] = ()

    def until(self, end: int) -> Conversation:
        """Its first messages."""
        return Conversation(self.messages[:end], self.tools)


@dataclass(frozen=True)
class Rendered:
    """A row as the model sees it. Only tokens that begin within `learned` count for the loss."""

    text: str
    learned: Spans
    special_tokens: bool
    """Whether the tokenizer still has to add the tokens that begin and end a document."""
    open_ended: bool = False
    """Whether a learned part may lack the token with which the model stops: it is then looked for behind it."""
    in_pieces: bool = False
    """Whether a text that is too long becomes several rows; otherwise it is cut."""
    unlearned_answers: int = 0
    """Answers that are not learned as they were written: the template writes them otherwise, or drops reasoning."""


class Template(Protocol):
    """The model's chat template."""

    @property
    def exists(self) -> bool: ...

    def marked(self, chat: Conversation) -> tuple[str, Spans] | None:
        """The text with what the assistant generates; None for a template that does not tell."""
        ...

    def render(self, chat: Conversation, *, answer_follows: bool) -> str: ...

    def is_rendered(self, text: str) -> bool:
        """Whether the text ends where the assistant goes on, as this template writes it."""
        ...


class RowFormat(Protocol):
    """One way to write training data."""

    @property
    def name(self) -> DataFormat: ...

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that every row must have, by the format's own names."""
        ...

    @property
    def optional(self) -> tuple[str, ...]:
        """Columns that a row may have."""
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
