"""Numbers that a tenant's pod may say: those that a status, and every JSON reader, can hold."""

from __future__ import annotations

import math
from typing import Final

LARGEST_COUNT: Final = 2**53
"""The largest whole number that every JSON reader keeps."""
LARGEST_FIGURE: Final = 1e30


def is_count(value: int) -> bool:
    """Whether it counts something: not negative, and of 53 bits."""
    return 0 <= value <= LARGEST_COUNT


def is_figure(value: float) -> bool:
    """Whether it is finite and of a size that is worth showing."""
    return math.isfinite(value) and abs(value) <= LARGEST_FIGURE
