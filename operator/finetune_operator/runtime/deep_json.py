"""JSON that was nested to break its reader.

A FineTuneJob has free-form parts, and the API server stores them 10,000 levels deep. Python's parser gives up at 1,000
and pydantic's at 200, and with it the whole list or watch in which such an object stands: one tenant would end the
operator for all. What lies deeper than any real object does is replaced by words, which then are refused as a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import pydantic_core

DEEPEST: Final = 100
TOO_DEEP: Final = "(nested too deeply)"
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_OPENING, _CLOSING = frozenset(b"[{"), frozenset(b"]}")


def from_json(data: bytes | str) -> Any:
    """The value; raises ValueError for what is no JSON."""
    try:
        return pydantic_core.from_json(data)
    except ValueError:
        encoded = data.encode() if isinstance(data, str) else data
        return pydantic_core.from_json(b"".join(_pruned(encoded)))


def _pruned(data: bytes) -> Iterator[bytes]:
    """The text with everything deeper than `DEEPEST` replaced."""
    depth, kept_to = 0, 0
    for token in _TOKENS.finditer(data):
        first = data[token.start()]
        if first in _OPENING:
            depth += 1
            if depth == DEEPEST + 1:
                yield data[kept_to : token.start()]
                yield f'"{TOO_DEEP}"'.encode()
        elif first in _CLOSING:
            if depth == DEEPEST + 1:
                kept_to = token.end()
            depth -= 1
    yield data[kept_to:]
