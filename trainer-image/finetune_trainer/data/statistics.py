"""Lengths of rows in tokens, counted as they come."""

from __future__ import annotations

from collections import Counter
from math import ceil

from finetune_trainer.contract import Percentiles


class Lengths:
    """A histogram: memory grows with the number of different lengths, not of rows."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, tokens: int) -> None:
        self._counts[tokens] += 1

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
