"""Before a Job is ended: its controller has to have seen which pods have failed.

Ending a Job deletes the pods that its controller takes for active. The operator often hears of a failed pod sooner,
and the kubelet tells of a container's end a moment before it tells of its pod's: a Job that is ended then loses that
pod, too, and with it the log that tells why.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from finetune_operator.api.status import Reason
from finetune_operator.plan.model.context import Decision, PolicyContext
from finetune_operator.plan.model.observed import StageJob
from finetune_operator.plan.policies.phases import PHASES

_AGAIN_SOON: Final = 1.0
_AT_MOST: Final = timedelta(seconds=10)
"""What the Job controller is given. It takes about a second; were it down, the status must tell all the same."""


def awaiting_count(context: PolicyContext, job: StageJob) -> Decision | None:
    """The status as it is while the Job's controller counts a pod as active that has ended; None when it does not."""
    ended = [pod.finished for pod in job.pods if pod.finished is not None]
    still_active = sum(not pod.ended and pod.finished is None for pod in job.pods)
    if job.has_ended or job.active <= still_active or not ended or context.now > max(ended) + _AT_MOST:
        return None
    phase, reason, message = PHASES[context.stage]
    status = context.status
    if status.reason is not None:
        phase, reason, message = status.phase, Reason(status.reason), status.message
    return Decision(phase, reason, message, requeue_after=_AGAIN_SOON)
