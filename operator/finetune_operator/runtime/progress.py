"""The newest report of every running job."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from finetune_operator.runtime.kinds import JobKey
from finetune_trainer.contract import Progress


class Report(NamedTuple):
    pod: str
    progress: Progress


class ProgressBoard:
    """Holds reports, and says which jobs have news. A sign of life alone is no news."""

    def __init__(self, news: Callable[[JobKey], None]) -> None:
        self._news = news
        self._reports: dict[JobKey, Report] = {}

    def report(self, key: JobKey, pod: str, progress: Progress) -> None:
        """Keeps what a pod said."""
        before = self._reports.get(key)
        self._reports[key] = Report(pod, progress)
        same_time = {"updated_at": progress.updated_at}
        if before is None or before.pod != pod or before.progress.model_copy(update=same_time) != progress:
            self._news(key)

    def newest(self, key: JobKey) -> Report | None:
        return self._reports.get(key)

    def forget(self, key: JobKey) -> None:
        self._reports.pop(key, None)
