"""Which rows are held out: decided by their content, so that the same rows are held out in every run."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Any


def fingerprint(values: dict[str, Any]) -> bytes:
    """16 bytes that stand for a row's content, whatever the order of its keys."""
    content = json.dumps(values, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(content.encode(errors="surrogatepass")).digest()[:16]


def held_out(fingerprints: Sequence[bytes], fraction: float) -> list[bool]:
    """For each row, whether it is held out.

    The rows with the smallest fingerprints are, about `fraction` of all, at least one where that leaves some to
    train on. Equal rows stay together: a held-out row is never trained on.
    """
    groups: dict[bytes, int] = defaultdict(int)
    for print_ in fingerprints:
        groups[print_] += 1
    wanted = max(1, round(len(fingerprints) * fraction)) if fraction > 0 else 0
    chosen: set[bytes] = set()
    count = 0
    for print_ in sorted(groups)[: len(groups) - 1]:
        if count >= wanted:
            break
        chosen.add(print_)
        count += groups[print_]
    return [print_ in chosen for print_ in fingerprints]
