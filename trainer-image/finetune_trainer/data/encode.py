"""From a row's text to token ids and labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import jinja2

from finetune_trainer.contract import LossOn, TrainingConfig
from finetune_trainer.data.formats.base import InvalidRow, Message, Rendered
from finetune_trainer.errors import InvalidConfig
from finetune_trainer.objectives import OBJECTIVES

IGNORED: Final = -100
"""The label of a token that does not count for the loss (PyTorch's ignore_index)."""


@dataclass(frozen=True)
class Encoded:
    input_ids: list[int]
    labels: list[int]
    """The same ids, `IGNORED` where the loss does not look."""
    truncated: bool


class ChatTemplate:
    """A tokenizer's chat template, as `formats.base.Template` asks for it."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    @property
    def exists(self) -> bool:
        return bool(self._tokenizer.chat_template)

    def render(self, messages: list[Message], *, answer_follows: bool) -> str:
        """Raises `InvalidRow` with the template's own words when it refuses the messages."""
        if not messages and not answer_follows:
            return ""
        rows = [{"role": message.role, "content": message.content} for message in messages]
        try:
            text = self._tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=answer_follows)
        except (jinja2.TemplateError, ValueError, IndexError) as error:
            raise InvalidRow(f"the chat template refuses it: {error}") from error
        return str(text)


@dataclass(frozen=True)
class Encoder:
    """Turns rendered rows into tokens. `tokenizer` is a fast one of transformers."""

    tokenizer: Any
    max_length: int
    learn_all: bool

    @classmethod
    def of(cls, tokenizer: Any, training: TrainingConfig) -> Encoder:
        if not tokenizer.is_fast:
            raise InvalidConfig(
                "the model's tokenizer has no fast version", field="spec.model.uri", advice="add a tokenizer.json"
            )
        learn_all = training.loss_on is LossOn.ALL or OBJECTIVES[training.objective].learns_all
        return cls(tokenizer, training.max_sequence_length, learn_all)

    def encode(self, rows: list[Rendered]) -> list[Encoded | InvalidRow]:
        """One verdict for each row, in their order."""
        found: dict[int, Encoded | InvalidRow] = {}
        for special in (True, False):
            chosen = [index for index, row in enumerate(rows) if row.special_tokens is special]
            if not chosen:
                continue
            tokens = self.tokenizer(
                [rows[index].text for index in chosen],
                add_special_tokens=special,
                return_offsets_mapping=True,
                return_attention_mask=False,
            )
            for index, ids, offsets in zip(chosen, tokens["input_ids"], tokens["offset_mapping"], strict=True):
                found[index] = self._labelled(rows[index], list(ids), offsets)
        return [found[index] for index in range(len(rows))]

    def _labelled(self, row: Rendered, ids: list[int], offsets: list[tuple[int, int]]) -> Encoded | InvalidRow:
        spans = ((0, len(row.text)),) if self.learn_all else row.learned
        learned = [any(start <= first and last <= end for start, end in spans) for first, last in offsets]
        end_of_text = self.tokenizer.eos_token_id
        if row.special_tokens and end_of_text is not None and ids[-1:] != [end_of_text]:
            ids.append(end_of_text)
            learned.append(True)
        labels = [token if learn else IGNORED for token, learn in zip(ids, learned, strict=True)]
        truncated = len(ids) > self.max_length
        ids, labels = ids[: self.max_length], labels[: self.max_length]
        if all(label == IGNORED for label in labels[1:]):  # the first token is never predicted
            return InvalidRow(
                f"nothing to learn is left within maxSequenceLength ({self.max_length} tokens)"
                if truncated
                else "nothing in it is to be learned"
            )
        return Encoded(ids, labels, truncated)
