"""`pvc://claim/path`: a file or folder of a PersistentVolumeClaim. Written and read here only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_SCHEME: Final = "pvc://"


@dataclass(frozen=True)
class InClaim:
    """What a pvc:// URI names."""

    claim: str
    path: str
    """Below the claim's root; empty for the claim as a whole."""


def in_claim(uri: str) -> InClaim | None:
    """None for a URI of another scheme."""
    if not uri.startswith(_SCHEME):
        return None
    claim, _, path = uri.removeprefix(_SCHEME).partition("/")
    return InClaim(claim, path)


def claim_of(uri: str) -> str | None:
    """The claim that a pvc:// URI names; None for one of another scheme."""
    found = in_claim(uri)
    return None if found is None else found.claim


def claim_uri(claim: str, *path: str | None) -> str:
    """The URI of what lies there, with the parts that are not empty."""
    return _SCHEME + "/".join((claim, *filter(None, path)))
