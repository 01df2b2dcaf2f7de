"""How a stage can end, and what that means: one table for the operator, the trainer, `finetune run` and the docs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class ExitCode(IntEnum):
    """How a stage ended; `_OUTCOMES` says what follows from each."""

    OK = 0
    INVALID_CONFIG = 64
    INVALID_DATA = 65
    NOT_FOUND = 66
    INTERNAL = 70
    OUT_OF_MEMORY = 71
    DIVERGED = 72
    CANNOT_WRITE = 73
    INTERRUPTED = 75
    PEER_LOST = 76
    KILLED = 137

    @property
    def exit_name(self) -> str:
        """The name shown to users, for example `invalid-config`."""
        return self.name.lower().replace("_", "-")

    @property
    def is_final(self) -> bool:
        """Whether the same pods would end the same way again: only the user (or a new plan) can fix it."""
        return _OUTCOMES[self].final

    @property
    def is_free(self) -> bool:
        """Whether a restart does not count against the restart budget."""
        return _OUTCOMES[self].free

    @property
    def is_resumable(self) -> bool:
        """Whether the checkpoints are as good as before the failure: neither training nor its input is to blame."""
        return _OUTCOMES[self].resumable

    @property
    def advice(self) -> str | None:
        """What the user can do about it, where the stage itself has said nothing better."""
        return _OUTCOMES[self].advice

    @property
    def consequence(self) -> str:
        """What the operator does about it, in the words of the docs."""
        return _OUTCOMES[self].consequence

    @classmethod
    def of(cls, code: int) -> ExitCode:
        """The exit code with this number; signals are `KILLED`, numbers nobody assigned are `INTERNAL`."""
        try:
            return cls(code)
        except ValueError:
            return cls.KILLED if code > _SIGNALS else cls.INTERNAL


_SIGNALS: Final = 128
"""A shell's exit code for a process that a signal ended is this plus the signal's number."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What follows from an exit code; each field is the property of `ExitCode` with its name."""

    consequence: str
    advice: str | None = None
    final: bool = False
    free: bool = False
    resumable: bool = False


_OUTCOMES: Final[Mapping[ExitCode, Outcome]] = {
    ExitCode.OK: Outcome(consequence="the next stage begins"),
    ExitCode.INVALID_CONFIG: Outcome(
        final=True,
        consequence="Failed at once; the message names the field of the spec",
        advice="Correct the spec and apply it as a new FineTuneJob",
    ),
    ExitCode.INVALID_DATA: Outcome(
        final=True,
        consequence="Failed at once; the message gives rows, reasons and the tolerance",
        advice="Correct the data, or raise spec.data.invalidTolerancePercent",
    ),
    ExitCode.NOT_FOUND: Outcome(
        final=True,
        consequence="Failed at once; the message names the URI that is missing or denied",
        advice="Check the URI and the credentials in its secretRef",
    ),
    ExitCode.INTERNAL: Outcome(
        resumable=True,
        consequence="train restarts within `runPolicy.maxRestarts`; prepare and publish are tried four times",
    ),
    ExitCode.OUT_OF_MEMORY: Outcome(
        final=True,
        resumable=True,
        consequence="Failed; the message says what to make smaller",
        advice="Lower trainerConfig.per_device_train_batch_size or maxSequenceLength in spec.training",
    ),
    ExitCode.DIVERGED: Outcome(
        final=True,
        consequence="Failed; the last good checkpoint is kept",
        advice="Lower trainerConfig.learning_rate in spec.training; the last good checkpoint is kept",
    ),
    ExitCode.CANNOT_WRITE: Outcome(
        resumable=True,
        consequence="train restarts within `runPolicy.maxRestarts`; prepare and publish are tried four times",
        advice="Check the space and the permissions of the workspace and of spec.output.uri",
    ),
    ExitCode.INTERRUPTED: Outcome(
        free=True, resumable=True, consequence="restarts from its checkpoint, free of charge"
    ),
    ExitCode.PEER_LOST: Outcome(resumable=True, consequence="the gang restarts within `runPolicy.maxRestarts`"),
    ExitCode.KILLED: Outcome(
        resumable=True,
        consequence="the gang restarts within `runPolicy.maxRestarts`",
        advice="Look at the events of its node",
    ),
}
