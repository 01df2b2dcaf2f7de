"""Which rows are held out: decided by their content, so that the same rows are held out in every run."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

PRINT_BYTES: Final = 16
_BUCKET_BITS: Final = 16

Prints = Callable[[], Iterable[bytes]]
"""Goes through all fingerprints, many in each piece, as often as it is asked: they need not fit into memory."""


def fingerprint(values: dict[str, Any]) -> bytes:
    """16 bytes that stand for a row's content, whatever the order of its keys."""
    content = json.dumps(values, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(content.encode(errors="surrogatepass")).digest()[:PRINT_BYTES]


def held_out_limit(prints: Prints, fraction: float) -> bytes | None:
    """The greatest fingerprint of a row that is held out; None when no row is.

    The rows with the smallest fingerprints are, about `fraction` of all, at least one where that leaves some to
    train on. Equal rows stay together: a held-out row is never trained on.
    """
    buckets = np.zeros(1 << _BUCKET_BITS, dtype=np.int64)
    for piece in prints():
        buckets += np.bincount(_bucket_of(_numbers(piece)), minlength=len(buckets))
    rows = int(buckets.sum())
    if fraction <= 0 or rows == 0:
        return None
    wanted = max(1, round(rows * fraction))
    bucket = int(np.searchsorted(np.cumsum(buckets), min(wanted, rows)))
    limit = _at(_in_bucket(prints, bucket), wanted - int(buckets[:bucket].sum()))
    last = int(np.flatnonzero(buckets)[-1])
    if bucket != last or limit != max(_in_bucket(prints, last)):
        return limit
    return _before(prints, buckets, limit)


def is_held_out(piece: bytes, limit: bytes | None) -> npt.NDArray[np.bool_]:
    """For each of these fingerprints, whether its row is held out."""
    numbers = _numbers(piece)
    if limit is None:
        return np.zeros(len(numbers), dtype=np.bool_)
    (high, low), highs, lows = _numbers(limit)[0], numbers[:, 0], numbers[:, 1]
    return np.asarray((highs < high) | ((highs == high) & (lows <= low)), dtype=np.bool_)


def _at(counts: Counter[bytes], rank: int) -> bytes:
    seen = 0
    for print_ in sorted(counts):
        seen += counts[print_]
        if seen >= rank:
            return print_
    return max(counts)


def _before(prints: Prints, buckets: npt.NDArray[np.int64], last: bytes) -> bytes | None:
    """The greatest fingerprint but the last, which is left to train on."""
    for bucket in reversed(np.flatnonzero(buckets)):
        if smaller := [print_ for print_ in _in_bucket(prints, int(bucket)) if print_ < last]:
            return max(smaller)
    return None


def _in_bucket(prints: Prints, bucket: int) -> Counter[bytes]:
    """How often each fingerprint of the bucket occurs: of 100 million rows, some 1,500 are in one."""
    found: Counter[bytes] = Counter()
    for piece in prints():
        numbers = _numbers(piece)
        found.update(row.tobytes() for row in numbers[_bucket_of(numbers) == bucket])
    return found


def _bucket_of(numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    return (numbers[:, 0] >> np.uint64(64 - _BUCKET_BITS)).astype(np.int64)


def _numbers(piece: bytes) -> npt.NDArray[np.uint64]:
    """Two numbers for each fingerprint, ordered as the fingerprints are."""
    return np.frombuffer(piece, dtype=">u8").reshape(-1, 2)


def pieces(prints: list[bytes]) -> Iterator[bytes]:
    """Fingerprints that do fit into memory, as `Prints` gives them."""
    if prints:
        yield b"".join(prints)
