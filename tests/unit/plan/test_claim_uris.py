"""`pvc://` URIs, taken apart and put together."""

from __future__ import annotations

import pytest

from finetune_operator.plan.model.claim_uris import InClaim, claim_of, claim_uri, in_claim


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("pvc://data/a/b", InClaim("data", "a/b")),
        ("pvc://data/", InClaim("data", "")),
        ("pvc://data", InClaim("data", "")),
        ("s3://data/a", None),
        ("pvc:/data/a", None),
    ],
)
def test_a_claim_and_what_lies_in_it_are_read_from_the_uri(uri: str, found: InClaim | None) -> None:
    assert in_claim(uri) == found
    assert claim_of(uri) == (None if found is None else found.claim)


def test_parts_that_are_empty_leave_no_trace() -> None:
    assert claim_uri("data", None, "a", "", "b/c") == "pvc://data/a/b/c"
    assert claim_uri("data") == "pvc://data"
