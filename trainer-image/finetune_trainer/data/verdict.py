"""Whether a tokenised dataset is fit to train on."""

from __future__ import annotations

from finetune_trainer.contract import RunConfig
from finetune_trainer.data.statistics import RowCounts
from finetune_trainer.errors import InvalidConfig, InvalidData
from finetune_trainer.objectives import OBJECTIVES


def judge(counts: RowCounts, config: RunConfig) -> None:
    """Raises `InvalidData` or `InvalidConfig` saying what to do about it."""
    where = "spec.datasets[0].uri" if len(config.datasets) == 1 else "spec.datasets"
    _check_invalid(counts, config.data.invalid_tolerance_percent, where)
    if not counts.valid:
        reasons = "; ".join(counts.reasons)
        raise InvalidData(
            f"there are no rows to train on{': ' + reasons if reasons else ''}",
            field=where,
            advice="add rows to the dataset",
        )
    if not counts.stops and not OBJECTIVES[config.training.objective].learns_all:
        _refuse_without_end(counts, config)


def _check_invalid(counts: RowCounts, tolerance: float, where: str) -> None:
    total = counts.valid + counts.invalid
    if total and counts.invalid / total * 100 > tolerance:
        raise InvalidData(
            f"{counts.invalid:,} of {total:,} rows are invalid ({counts.invalid / total:.1%}), "
            f"more than the {tolerance:g} % tolerated: {'; '.join(counts.reasons)}",
            field=where,
            advice="fix the rows, name the columns in spec.datasets[].columns, "
            "or raise spec.data.invalidTolerancePercent",
        )


def _refuse_without_end(counts: RowCounts, config: RunConfig) -> None:
    if counts.truncated == counts.valid:
        raise InvalidConfig(
            f"all {counts.valid:,} rows are cut at {config.training.max_sequence_length} tokens: "
            "the model would never learn to stop",
            field="spec.training.maxSequenceLength",
            advice="raise it",
        )
    raise InvalidConfig(
        "no answer ends with a token that is learned and with which the model stops: it would never learn to stop",
        field="spec.training.chatTemplate",
        advice="end the assistant's message in the template with the model's end-of-turn token, "
        "inside {% generation %} where the template has that",
    )
