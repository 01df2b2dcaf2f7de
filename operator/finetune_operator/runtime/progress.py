"""The newest report of every running job."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

from finetune_operator.runtime.kinds import JobKey
from finetune_trainer.contract import Progress


class Report(NamedTuple):
    pod: str
    progress: Progress
    """What the pod said; `updated_at` is when it arrived here, whatever time it is on the pod's node."""
    received: datetime
    """When it arrived."""
    sent: datetime
    """When it was made, by the clock of the pod's node: good for telling one report from another, and nothing else."""


class ProgressBoard:
    """Holds one report a job, and says which jobs have news. A sign of life alone is no news."""

    def __init__(self, news: Callable[[JobKey], None]) -> None:
        self._news = news
        self._reports: dict[JobKey, Report] = {}

    def report(self, key: JobKey, pod: str, progress: Progress, now: datetime) -> None:
        """Keeps what a pod said, as of now. The same report again is no sign of life."""
        before = self._reports.get(key)
        if before is not None and before.pod == pod and before.sent == progress.updated_at:
            said_before = progress.model_copy(update={"updated_at": before.received})
            if said_before == before.progress:
                return
        after = Report(pod, progress.model_copy(update={"updated_at": now}), now, progress.updated_at)
        self._reports[key] = after
        if (
            before is None
            or before.pod != pod
            or before.progress.model_copy(update={"updated_at": now}) != after.progress
        ):
            self._news(key)

    def newest(self, key: JobKey) -> Report | None:
        return self._reports.get(key)

    def forget(self, key: JobKey) -> None:
        self._reports.pop(key, None)
