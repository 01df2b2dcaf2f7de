"""`finetune watch`: a job of the cluster, until it ends."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from rich.text import Text

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import JobStatus, Phase
from finetune_operator.cli import kube
from finetune_operator.cli.console import output
from finetune_operator.cli.display import LiveDisplay, PlainDisplay, display
from finetune_operator.cli.report import report

if TYPE_CHECKING:
    from finetune_operator.cluster.read_job import Reader

_EVERY: Final = 1.0


def watch(name: str, namespace: str, context: str, *, plain: bool) -> int:
    """Shows the job until it is over; 0 when it succeeded."""
    console = output()

    async def work(found: Reader) -> FineTuneJob | None:
        job = await found.job(name)
        if job is None:
            raise kube.not_found(name, found.namespace)
        started = (job.status and job.status.start_time) or datetime.now(UTC)
        shower = display(console, name, started, plain=plain)
        with shower.running():
            return await _follow(found, job, shower)

    try:
        job = kube.with_reader(work, context, namespace)
    except KeyboardInterrupt:
        console.print(Text("No longer watching; the job goes on.", style="yellow"))
        return 1
    if job is None:
        console.print(Text("The job was deleted.", style="bold red"))
        return 1
    status = job.status or JobStatus()
    report(console, status)
    return 0 if status.phase is Phase.SUCCEEDED else 1


async def _follow(found: Reader, job: FineTuneJob, shower: LiveDisplay | PlainDisplay) -> FineTuneJob | None:
    """The job as it ended; None when it was deleted."""
    while True:
        status = job.status or JobStatus()
        shower.show(status, datetime.now(UTC))
        if status.phase.is_terminal:
            return job
        await asyncio.sleep(_EVERY)
        next_seen = await found.job(job.metadata.name)
        if next_seen is None or next_seen.metadata.uid != job.metadata.uid:
            return None
        job = next_seen
