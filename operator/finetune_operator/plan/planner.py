"""The planner: a chain of policies, the first of which that has something to say decides."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from finetune_operator.plan.observed import Observed
from finetune_operator.plan.plan import Plan
from finetune_operator.plan.settings import PlanSettings


@dataclass(frozen=True)
class Rejection:
    """What the API server answered to an action."""

    status: int
    """HTTP status: 422 invalid, 403 forbidden (quota, pod security, RBAC)."""
    reason: str
    """The reason of its Status object: Invalid, Forbidden, ..."""
    message: str


def plan(observed: Observed, now: datetime, settings: PlanSettings) -> Plan:
    """What the job needs next: things to do, the status to show, the events to send."""
    raise NotImplementedError


def rejected(observed: Observed, plan: Plan, rejection: Rejection, now: datetime) -> Plan:
    """What to show when the API server refused one of `plan`'s actions: no actions, tried again after a while."""
    raise NotImplementedError
