"""What Kubernetes' Job controller would do with a Job: pure, from its record and a time to a verdict.

The rules are batch/v1's: an index that failed gets a new pod after a back-off, `podFailurePolicy` may fail
the Job or pass a failure over, `backoffLimit` bounds the rest, a Job that fails or is deleted takes its
pods down first. Only the back-off is shorter, since no cluster is to be spared.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

from finetune_operator.local.records import JobRecord, PodRecord

_USUAL_BACKOFF_LIMIT: Final = 6
_SHORTEST_BACKOFF: Final = 1.0
_LONGEST_BACKOFF: Final = 30.0


@dataclass(frozen=True)
class Start:
    """Make a pod for each of these indexes."""

    indexes: tuple[int, ...]


@dataclass(frozen=True)
class Stop:
    """Take the running pods down."""


@dataclass(frozen=True)
class Complete:
    """Every index has succeeded."""


@dataclass(frozen=True)
class FailJob:
    """The Job failed, in its own words."""

    message: str


Verdict = Start | Stop | Complete | FailJob | None


def verdict(job: JobRecord, now: datetime) -> Verdict:
    """The next thing to do with the Job, if there is one now."""
    if not job.makes_pods:
        return Stop() if any(not pod.deleting for pod in job.running) else None
    succeeded = {pod.index for pod in job.pods if pod.exit_code == 0}
    if len(succeeded) >= job.completions:
        return Complete()
    failed = [pod for pod in job.pods if not pod.running and pod.exit_code != 0]
    final = next((pod for pod in failed if _action(job, pod) in ("FailJob", "FailIndex")), None)
    if final is not None:
        return FailJob(f"PodFailurePolicy: pod {final.name} ended with exit code {final.exit_code}")
    counted = [pod for pod in failed if _action(job, pod) != "Ignore"]
    if len(counted) > int(job.manifest["spec"].get("backoffLimit", _USUAL_BACKOFF_LIMIT)):
        return FailJob("BackoffLimitExceeded: Job has reached the specified backoff limit")
    missing = set(range(job.completions)) - succeeded - {pod.index for pod in job.running}
    return Start(tuple(sorted(missing))) if missing and _rested(failed, now) else None


def _rested(failed: list[PodRecord], now: datetime) -> bool:
    """Whether the back-off after the Job's failures is over."""
    ends = [pod.finished for pod in failed if pod.finished]
    if not ends:
        return True
    wait = min(_SHORTEST_BACKOFF * 2 ** (len(ends) - 1), _LONGEST_BACKOFF)
    return now >= max(ends) + timedelta(seconds=wait)


def _action(job: JobRecord, pod: PodRecord) -> str:
    rules = job.manifest["spec"].get("podFailurePolicy", {}).get("rules", [])
    return next((str(rule["action"]) for rule in rules if _matches(rule, pod)), "Count")


def _matches(rule: dict[str, Any], pod: PodRecord) -> bool:
    if "onExitCodes" in rule:
        codes = rule["onExitCodes"]
        listed = pod.exit_code in codes["values"]
        return pod.exit_code is not None and listed == (codes["operator"] == "In")
    conditions = {condition["type"] for condition in rule.get("onPodConditions", [])}
    return pod.disrupted and "DisruptionTarget" in conditions
