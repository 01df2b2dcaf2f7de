"""Why a job cannot be planned, in words for the person who wrote it."""

from __future__ import annotations

from finetune_operator.api.status import Reason


class SpecProblem(Exception):  # noqa: N818 - a finding about the spec, told to its author
    """The spec, with its template, asks for something that cannot be. `message` says where, what and what to do."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
