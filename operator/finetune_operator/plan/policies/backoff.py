"""How long a restart waits: not at all after progress, twice as long each time without.

Computed from recorded times, so that an operator that is started again waits no longer and no less.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from finetune_operator.api.status import Attempt, JobStatus

_FIRST_SECONDS: Final = 5.0
_LONGEST_SECONDS: Final = 300.0
_DOUBLINGS: Final = 16


def delay_seconds(tries: int) -> float:
    """The wait after that many attempts in a row without a new checkpoint: 0, 0, 5, 10, 20, ... 300."""
    if tries <= 1:
        return 0.0
    return min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(tries - 2, _DOUBLINGS))


def remaining_seconds(ended: Attempt, now: datetime) -> float:
    """How much of the wait after this attempt is left."""
    if ended.end is None:
        return 0.0
    due = ended.end + timedelta(seconds=delay_seconds(ended.tries))
    return max(0.0, (due - now).total_seconds())


def newest_checkpoint(status: JobStatus, attempt: Attempt | None) -> int | None:
    """Step of the newest checkpoint that is known to be whole: verified, or resumed from."""
    steps = [checkpoint.step for checkpoint in status.checkpoints if checkpoint.verified]
    if attempt is not None and attempt.resumed_from_step is not None:
        steps.append(attempt.resumed_from_step)
    return max(steps, default=None)


def has_progressed(newest: int | None, previous: Attempt | None) -> bool:
    """Whether there is a checkpoint that there was not when the attempt before ended."""
    if newest is None:
        return False
    return previous is None or previous.checkpoint_step is None or newest > previous.checkpoint_step
