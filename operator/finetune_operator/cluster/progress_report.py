"""Reads what a pod answers to /progress. It is a tenant's word: nothing in it may harm whoever reads it."""

from __future__ import annotations

from typing import Any, Final

from pydantic import ValidationError

from finetune_operator.cluster.bounds import is_count, is_figure
from finetune_trainer.contract import Progress

LARGEST: Final = 64 * 1024
"""Bytes of a report; the trainer's own take one or two KiB."""
_MOST_CHECKPOINTS: Final = 16
_LONGEST_MESSAGE: Final = 512
_LONGEST_URI: Final = 2048
_LONGEST_ETA: Final = 10 * 365 * 86400.0


class ReportError(ValueError):
    """A report that no trainer of ours would send."""


def parse_report(data: bytes) -> Progress:
    """A report of a few KiB at most, with numbers that are finite and text that is printable. Raises ReportError."""
    try:
        report = Progress.model_validate_json(data)
    except (ValidationError, ValueError, RecursionError) as error:
        raise ReportError(f"it is no Progress: {type(error).__name__}") from error
    _check_counts({name: value for name, value in report if name != "checkpoints"})
    for checkpoint in report.checkpoints:
        _check_counts(dict(checkpoint))
        if len(checkpoint.uri) > _LONGEST_URI or not checkpoint.uri.isprintable():
            raise ReportError("a checkpoint's URI is too long or holds control characters")
    newest = sorted(report.checkpoints, key=lambda checkpoint: checkpoint.step)[-_MOST_CHECKPOINTS:]
    changes: dict[str, Any] = {name: _figure(value) for name, value in report if isinstance(value, float)}
    changes["message"] = _printable(report.message)
    changes["checkpoints"] = tuple(one.model_copy(update={"loss": _figure(one.loss)}) for one in newest)
    if report.eta_seconds is not None and not 0 <= report.eta_seconds <= _LONGEST_ETA:
        changes["eta_seconds"] = None
    return report.model_copy(update=changes)


def _check_counts(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        if isinstance(value, int) and not is_count(value):
            raise ReportError(f"{name} is negative or too large")


def _figure(value: float | None) -> float | None:
    """The number, unless a status could not show it."""
    return value if value is not None and is_figure(value) else None


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text[:_LONGEST_MESSAGE])
