"""What came of the rows, counted as they come."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from math import ceil
from typing import Final

from finetune_trainer.contract import Percentiles
from finetune_trainer.data.encode import Encoded

_REASONS: Final = 5
_LONGEST_REASON: Final = 160


class Lengths:
    """A histogram: memory grows with the number of different lengths, not of rows."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, tokens: int) -> None:
        self._counts[tokens] += 1

    def merge(self, other: Lengths) -> None:
        self._counts.update(other._counts)

    @property
    def total(self) -> int:
        return sum(length * count for length, count in self._counts.items())

    def percentiles(self) -> Percentiles | None:
        """Nearest-rank percentiles (the smallest length that covers that share of the rows); None without rows."""
        if not self._counts:
            return None
        return Percentiles(p50=self._at(50), p90=self._at(90), p99=self._at(99), max=max(self._counts))

    def _at(self, percent: int) -> int:
        rank = ceil(percent / 100 * self._counts.total())
        seen = 0
        for length in sorted(self._counts):
            seen += self._counts[length]
            if seen >= rank:
                return length
        raise AssertionError("the ranks do not reach the percentile")


@dataclass
class RowCounts:
    """What came of the rows so far."""

    valid: int = 0
    invalid: int = 0
    truncated: int = 0
    cut_tokens: int = 0
    learned_tokens: int = 0
    unlearned_answers: int = 0
    stops: int = 0
    """Rows that teach the model to stop."""
    reasons: list[str] = field(default_factory=list)
    lengths: Lengths = field(default_factory=Lengths)

    def refuse(self, place: str, reason: str) -> None:
        self.invalid += 1
        if len(self.reasons) < _REASONS:
            self.reasons.append(f"{place}: {reason}"[:_LONGEST_REASON])

    def accept(self, row: Encoded) -> None:
        self.valid += 1
        self.truncated += row.cut > 0
        self.cut_tokens += row.cut
        self.learned_tokens += row.learned
        self.stops += row.teaches_stop
        self.lengths.add(len(row.input_ids))

    def merge(self, other: RowCounts) -> None:
        """Add what came of the rows that follow."""
        self.valid += other.valid
        self.invalid += other.invalid
        self.truncated += other.truncated
        self.cut_tokens += other.cut_tokens
        self.learned_tokens += other.learned_tokens
        self.unlearned_answers += other.unlearned_answers
        self.stops += other.stops
        self.reasons = (self.reasons + other.reasons)[:_REASONS]
        self.lengths.merge(other.lengths)
