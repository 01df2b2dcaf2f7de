"""How long a restart waits: not at all after progress, twice as long each time without.

What a trainer says of its checkpoints is believed, but it is the word of a tenant's own image: two attempts in a row
that ran for less than a minute count as two without progress, whatever they say, so that no word of theirs buys
restarts without a pause. One of them may be an accident, and restarts at once.

Computed from recorded times, so that an operator that is started again waits no longer and no less.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from finetune_operator.api.status import Attempt, JobStatus

_FIRST_SECONDS: Final = 5.0
_LONGEST_SECONDS: Final = 300.0
_DOUBLINGS: Final = 16
_SHORT: Final = timedelta(seconds=60)
_AFTER_TWO_SHORT: Final = 2


def delay_seconds(tries: int) -> float:
    """The wait after that many attempts in a row without a new checkpoint: 0, 0, 5, 10, 20, ... 300."""
    if tries <= 1:
        return 0.0
    return min(_LONGEST_SECONDS, _FIRST_SECONDS * 2.0 ** min(tries - 2, _DOUBLINGS))


def tries_until(ended: Attempt, previous: Attempt | None, *, progressed: bool) -> int:
    """How many attempts in a row count as having ended without a new checkpoint, this one included."""
    if previous is None:
        return 1
    if not progressed:
        return previous.tries + 1
    return _AFTER_TWO_SHORT if previous.tries and _is_short(previous) and _is_short(ended) else 1


def _is_short(ended: Attempt) -> bool:
    """Whether its pods ran together for less than a minute."""
    if ended.end is None or ended.running_since is None:
        return True
    return ended.end - ended.running_since < _SHORT


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
