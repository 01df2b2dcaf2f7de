"""The exit code of a command, from how the job ended."""

from __future__ import annotations

from typing import Final

from finetune_operator.api.status import JobStatus, Phase, Reason
from finetune_operator.local.records import PodRecord
from finetune_trainer.contract import ExitCode

_OF_STAGES: Final = {Reason[code.name]: code for code in ExitCode if code}
_BEFORE_ANY_STAGE: Final = {
    Reason.TEMPLATE_NOT_FOUND: ExitCode.INVALID_CONFIG,
    Reason.SECRET_NOT_FOUND: ExitCode.NOT_FOUND,
    Reason.CLAIM_NOT_FOUND: ExitCode.NOT_FOUND,
    Reason.RESUME_NOT_FOUND: ExitCode.NOT_FOUND,
    Reason.NO_OUTPUT: ExitCode.INVALID_CONFIG,
    Reason.INVALID_SPEC: ExitCode.INVALID_CONFIG,
    Reason.REJECTED: ExitCode.INVALID_CONFIG,
}


def exit_code(status: JobStatus, failed: PodRecord | None = None) -> ExitCode:
    """0 for success, the failing stage's own exit code, 75 for a job that was stopped before its end."""
    if status.phase is Phase.SUCCEEDED:
        return ExitCode.OK
    codes = {reason.value: code for reason, code in (_OF_STAGES | _BEFORE_ANY_STAGE).items()}
    if status.reason in codes:
        return codes[status.reason]
    if status.phase is not Phase.FAILED:
        return ExitCode.INTERRUPTED
    outcome = failed.observed().outcome if failed is not None else None
    return outcome or ExitCode.INTERNAL
