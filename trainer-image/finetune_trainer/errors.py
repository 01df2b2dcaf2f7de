"""How a stage says that it cannot go on: one type for each exit code, with words for the person who can act."""

# ruff: noqa: N818 - named like the exit codes they stand for

from __future__ import annotations

from typing import ClassVar, Final

from finetune_trainer.contract import ExitCode, Result, Stage

_LONGEST_TEXT: Final = 1200
"""Characters of a message or an advice that certainly fit a termination message together."""


class StageError(Exception):
    """The stage cannot go on.

    `field` is the path in the job's spec of what is wrong (`spec.model.uri`), `advice` says what to do about it.
    """

    exit_code: ClassVar[ExitCode] = ExitCode.INTERNAL

    def __init__(self, message: str, *, field: str | None = None, advice: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.advice = advice

    def result(self, stage: Stage) -> Result:
        """The stage's last word, cut to what fits a termination message."""
        return Result(
            stage=stage,
            exit_code=self.exit_code,
            message=_cut(self.message),
            field=self.field,
            advice=None if self.advice is None else _cut(self.advice),
        )


class InvalidConfig(StageError):
    """The spec asks for something that cannot be."""

    exit_code = ExitCode.INVALID_CONFIG


class InvalidData(StageError):
    """The data is there, but not fit to train on."""

    exit_code = ExitCode.INVALID_DATA


class NotFound(StageError):
    """A model or a dataset is missing, or access to it is denied."""

    exit_code = ExitCode.NOT_FOUND


class CannotWrite(StageError):
    """The workspace or the output is full, missing or denied."""

    exit_code = ExitCode.CANNOT_WRITE


class Diverged(StageError):
    """The loss became NaN or infinite."""

    exit_code = ExitCode.DIVERGED


class OutOfMemory(StageError):
    """The plan does not fit the device."""

    exit_code = ExitCode.OUT_OF_MEMORY


class PeerLost(StageError):
    """Another rank vanished."""

    exit_code = ExitCode.PEER_LOST


class Interrupted(StageError):
    """Somebody asked the stage to stop, and it saved its work first."""

    exit_code = ExitCode.INTERRUPTED


class Internal(StageError):
    """A promise between our own stages is broken; trying again may help."""

    exit_code = ExitCode.INTERNAL


def _cut(text: str) -> str:
    encoded = text.encode()
    return text if len(encoded) <= _LONGEST_TEXT else encoded[: _LONGEST_TEXT - 3].decode(errors="ignore") + "..."
