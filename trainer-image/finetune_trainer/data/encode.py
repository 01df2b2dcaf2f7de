"""From a row's text to token ids and labels."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from finetune_trainer.contract import LossOn, TrainingConfig
from finetune_trainer.data.formats.base import InvalidRow, Rendered, Spans
from finetune_trainer.errors import InvalidConfig
from finetune_trainer.objectives import OBJECTIVES

IGNORED: Final = -100
"""The label of a token that does not count for the loss (PyTorch's ignore_index)."""

Offsets = list[tuple[int, int]]
"""For each token, where in the text it begins and ends; (0, 0) for one that the tokenizer added."""


@dataclass(frozen=True)
class Encoded:
    input_ids: list[int]
    labels: list[int]
    """The same ids, `IGNORED` where the loss does not look."""
    cut: int = 0
    """Tokens that did not fit maxSequenceLength."""
    teaches_stop: bool = False
    """Whether a token with which the model stops is learned."""

    @property
    def learned(self) -> int:
        return len(self.labels) - self.labels.count(IGNORED)


@dataclass(frozen=True)
class Encoder:
    """Turns rendered rows into tokens. `tokenizer` is a fast one of transformers."""

    tokenizer: Any
    max_length: int
    learn_all: bool
    ends: frozenset[int]
    """Tokens outside the tokenizer's alphabet: with one of them a model ends its turn."""
    marks: frozenset[int]
    """Those of them that stand for no text: a document that has one at its end has been ended by somebody."""

    @classmethod
    def of(cls, tokenizer: Any, training: TrainingConfig) -> Encoder:
        if not tokenizer.is_fast:
            raise InvalidConfig(
                "the model's tokenizer has no fast version", field="spec.model.uri", advice="add a tokenizer.json"
            )
        learn_all = training.loss_on is LossOn.ALL or OBJECTIVES[training.objective].learns_all
        unknown = {tokenizer.unk_token_id}
        marks = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
        marks = (marks | set(tokenizer.all_special_ids)) - unknown
        ends = marks | set(tokenizer.get_added_vocab().values()) - unknown
        return cls(tokenizer, training.max_sequence_length, learn_all, frozenset(ends), frozenset(marks))

    def encode(self, rows: list[Rendered]) -> list[list[Encoded] | InvalidRow]:
        """One verdict for each row, in their order: what it becomes, or why it becomes nothing."""
        found: dict[int, list[Encoded] | InvalidRow] = {}
        adds = [row.special_tokens and not self._begins_document(row.text) for row in rows]
        for special in (True, False):
            chosen = [index for index, added in enumerate(adds) if added is special]
            if not chosen:
                continue
            tokens = self.tokenizer(
                [rows[index].text for index in chosen],
                add_special_tokens=special,
                return_offsets_mapping=True,
                return_attention_mask=False,
            )
            for index, ids, offsets in zip(chosen, tokens["input_ids"], tokens["offset_mapping"], strict=True):
                found[index] = self._verdict(rows[index], list(ids), list(offsets))
        return [found[index] for index in range(len(rows))]

    def _begins_document(self, text: str) -> bool:
        """Whether somebody has written the token already with which a document begins."""
        begin = self.tokenizer.bos_token
        return bool(begin) and text.startswith(begin)

    def _verdict(self, row: Rendered, ids: list[int], offsets: Offsets) -> list[Encoded] | InvalidRow:
        learned, stops = self._learned(row, ids, offsets)
        if self.learn_all:
            learned = [True] * len(ids)
        labels = [token if learn else IGNORED for token, learn in zip(ids, learned, strict=True)]
        if row.in_pieces and len(ids) > self.max_length:
            return list(self._pieces(ids, labels, stops))
        cut = max(0, len(ids) - self.max_length)
        ids, labels = ids[: self.max_length], labels[: self.max_length]
        if all(label == IGNORED for label in labels[1:]):  # the first token is never predicted
            return InvalidRow(
                f"nothing to learn is left within maxSequenceLength ({self.max_length} tokens)"
                if cut
                else "nothing in it is to be learned"
            )
        return [Encoded(ids, labels, cut, teaches_stop=any(stop < len(ids) for stop in stops))]

    def _pieces(self, ids: list[int], labels: list[int], stops: list[int]) -> Iterator[Encoded]:
        """Each piece begins with the last token of the one before, since a row's first token is never predicted."""
        for start in range(0, len(ids) - 1, self.max_length - 1):
            end = start + self.max_length
            stop = any(start < place < end for place in stops)
            mine = labels[start:end] if start == 0 else [IGNORED, *labels[start + 1 : end]]
            yield Encoded(ids[start:end], mine, teaches_stop=stop)

    def _learned(self, row: Rendered, ids: list[int], offsets: Offsets) -> tuple[list[bool], list[int]]:
        """Which tokens are learned, and where among them are those that stop; adds the end of text where it lacks."""
        owners = _owners(row.learned, offsets)
        learned = [owner is not None for owner in owners]
        stops = []
        for last in _lasts(row.text, owners, offsets):
            if ids[last] in self.ends:
                stops.append(last)
            elif row.open_ended and last + 1 < len(ids) and ids[last + 1] in self.ends:
                learned[last + 1] = True  # the next turn begins: there generation ends
                stops.append(last + 1)
        if row.special_tokens or (row.open_ended and row.learned[-1][1] >= len(row.text.rstrip())):
            stops += self._end_document(row, ids, offsets, learned)
        return learned, stops

    def _end_document(self, row: Rendered, ids: list[int], offsets: Offsets, learned: list[bool]) -> list[int]:
        """Makes the document end with a learned token that says so; where it is."""
        end_of_text = self.tokenizer.eos_token_id
        last = next((i for i in reversed(range(len(ids))) if not _is_space(row.text, offsets[i])), None)
        if last is None or end_of_text is None:
            return []
        if ids[-1] == end_of_text:
            last = len(ids) - 1  # the tokenizer may have added it: then it has no place in the text
        elif ids[last] not in (self.ends if row.open_ended else self.marks):
            ids.append(end_of_text)
            learned.append(True)
            last = len(ids) - 1
        learned[last] = True
        return [last]


def _owners(spans: Spans, offsets: Offsets) -> list[int | None]:
    """For each token, in which of the parts it begins."""
    if len(spans) == 1:
        begin, end = spans[0]
        return [0 if begin <= first < end else None for first, _ in offsets]
    starts = [start for start, _ in spans]
    found: list[int | None] = []
    for first, _ in offsets:
        owner = bisect_right(starts, first) - 1
        found.append(owner if owner >= 0 and first < spans[owner][1] else None)
    return found


def _lasts(text: str, owners: list[int | None], offsets: Offsets) -> list[int]:
    """Of each part the last token that is not white space."""
    ends = {owner: index for index, owner in enumerate(owners) if owner is not None}
    lasts = []
    for owner, end in ends.items():
        last = end
        while last > 0 and owners[last - 1] == owner and _is_space(text, offsets[last]):
            last -= 1
        lasts.append(last)
    return lasts


def _is_space(text: str, offset: tuple[int, int]) -> bool:
    return text[offset[0] : offset[1]].isspace()
