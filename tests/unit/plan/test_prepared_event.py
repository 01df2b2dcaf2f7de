"""What the event of a prepared dataset says of the rows that are not learned as they were written."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.plan.builders import prepared

from finetune_operator.api.status import JobStatus
from finetune_operator.plan.status.events import milestones


def told(**changes: Any) -> str:
    (event,) = milestones(JobStatus(), JobStatus(dataset=prepared(invalid_rows=0, **changes)))
    return event.message


def test_a_dataset_of_which_nothing_is_lost_is_told_by_its_numbers() -> None:
    assert told() == "1200 rows, 60 of them held out, 180000 tokens"
    assert told(truncated_rows=12, cut_tokens=1800) == told()


@pytest.mark.parametrize(
    ("cut", "words"),
    [
        ({"truncated_rows": 13, "cut_tokens": 40}, "; 13 rows cut at maxSequenceLength (40 tokens)"),
        ({"truncated_rows": 1, "cut_tokens": 1801}, "; 1 row cut at maxSequenceLength (1801 tokens)"),
        ({"unlearned_answers": 7}, "; 7 answers not learned, or without their reasoning"),
    ],
)
def test_more_than_a_hundredth_cut_is_told_and_so_are_answers_that_are_not_learned(
    cut: dict[str, int], words: str
) -> None:
    assert told(**cut).endswith(words)
