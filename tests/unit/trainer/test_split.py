"""Held-out rows are chosen by their content: stable, disjoint, and about as many as asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from finetune_trainer.data.split import fingerprint, held_out_limit, is_held_out, pieces
from finetune_trainer.data.statistics import Lengths

PRINTS = st.lists(st.integers(0, 500), min_size=1).map(lambda numbers: [fingerprint({"text": n}) for n in numbers])
FRACTIONS = st.floats(0, 0.9)


def held_out(prints: list[bytes], fraction: float) -> list[bool]:
    limit = held_out_limit(lambda: pieces(prints), fraction)
    return list(map(bool, is_held_out(b"".join(prints), limit)))


@given(PRINTS, FRACTIONS)
def test_equal_rows_are_on_the_same_side_and_some_rows_are_left_to_train_on(prints: list[bytes], part: float) -> None:
    out = held_out(prints, part)
    evaluated = {row for row, is_out in zip(prints, out, strict=True) if is_out}
    trained = {row for row, is_out in zip(prints, out, strict=True) if not is_out}
    assert not evaluated & trained
    assert trained


@given(PRINTS, FRACTIONS)
def test_the_same_rows_are_held_out_whatever_their_order(prints: list[bytes], part: float) -> None:
    forward = dict(zip(prints, held_out(prints, part), strict=True))
    backward = dict(zip(reversed(prints), held_out(prints[::-1], part), strict=True))
    assert forward == backward


@given(st.integers(2, 300), FRACTIONS)
def test_as_many_are_held_out_as_asked_for(rows: int, part: float) -> None:
    prints = [fingerprint({"text": number}) for number in range(rows)]
    wanted = min(rows - 1, max(1, round(rows * part))) if part > 0 else 0
    assert sum(held_out(prints, part)) == wanted


def test_percentiles_are_lengths_that_rows_have() -> None:
    lengths = Lengths()
    for tokens in range(1, 101):
        lengths.add(tokens)
    found = lengths.percentiles()
    assert found is not None
    assert (found.p50, found.p90, found.p99, found.max) == (50, 90, 99, 100)
    assert lengths.total == 5050
    assert Lengths().percentiles() is None
