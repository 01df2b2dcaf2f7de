"""`finetune logs`: what a job's pods wrote, here or in a cluster."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from finetune_operator.cli import kube
from finetune_operator.cli.errors import CliError
from finetune_operator.cli.jobfile import DEFAULT_NAMESPACE
from finetune_operator.cli.local_logs import LocalLog, local_logs
from finetune_operator.cli.log_lines import shower
from finetune_operator.local.folders import JobFolder
from finetune_trainer.contract import ExitCode, Stage

if TYPE_CHECKING:
    from finetune_operator.cluster.read_job import Reader, StagePod

_EVERY: Final = 1.0


@dataclass(frozen=True)
class Wanted:
    """Which logs, and what to do with them."""

    stage: str = ""
    rank: int | None = None
    follow: bool = False
    previous: bool = False
    save: Path | None = None

    def __post_init__(self) -> None:
        if self.stage and self.stage not in list(Stage):
            raise CliError(f"--stage {self.stage}: {', '.join(Stage)} are known")
        if self.follow and (self.save or self.previous):
            raise CliError("--follow goes with neither --save nor --previous")

    def picks(self, stage: Stage, rank: int) -> bool:
        return self.stage in ("", stage.value) and self.rank in (None, rank)


def logs(  # noqa: PLR0913, PLR0917 - where to look, and for what
    name: str, namespace: str, context: str, wanted: Wanted, state_dir: Path | None, usual_state_dir: Path
) -> None:
    """Prints or saves the logs. A local run is looked at first, unless a context says which cluster to ask."""
    folder = JobFolder.of(state_dir or usual_state_dir, namespace or DEFAULT_NAMESPACE, name)
    if state_dir is not None or (folder.logs_dir.is_dir() and not context):
        _of_local_run(name, folder, wanted)
        return
    try:
        kube.with_reader(lambda found: _of_cluster(found, name, wanted), context, namespace)
    except KeyboardInterrupt:
        return


def _of_local_run(name: str, folder: JobFolder, wanted: Wanted) -> None:
    found = [log for log in local_logs(folder) if wanted.picks(log.stage, log.rank)]
    if not found:
        raise CliError(f"no logs of {name} in {folder.root}", exit_code=ExitCode.NOT_FOUND)
    if wanted.save is not None:
        _save(wanted.save, ((log.title, log.text()) for log in found))
        return
    newest = found if wanted.stage else [log for log in found if log.stage is found[-1].stage]
    if wanted.follow:
        _follow_files(newest)
        return
    for log in newest:
        _print(log.title if len(newest) > 1 else "", log.attempt(1 if wanted.previous else 0).splitlines())


def _follow_files(logs: Sequence[LocalLog]) -> None:
    import time  # noqa: PLC0415 - only here

    tails = [(log.title if len(logs) > 1 else "", log.tail()) for log in logs]
    try:
        while True:
            for title, tail in tails:
                _print(title, tail())
            time.sleep(_EVERY)
    except KeyboardInterrupt:
        return


async def _of_cluster(found: Reader, name: str, wanted: Wanted) -> None:
    from finetune_operator.cluster.logs import PodLog  # noqa: PLC0415 - an extra

    pods = [pod for pod in await found.pods(name) if wanted.picks(pod.stage, pod.state.index)]
    if not pods:
        if await found.job(name) is None:
            raise kube.not_found(name, found.namespace)
        raise CliError(f"{name} has no such pods (any more)", exit_code=ExitCode.NOT_FOUND)
    if wanted.save is not None:
        texts = [(_title(pod), await PodLog(found.client, found.namespace, pod.state.name).more()) for pod in pods]
        _save(wanted.save, ((title, "\n".join(lines)) for title, lines in texts))
        return
    shown = list(_newest(pods, wanted))
    readers = [
        (_title(pod) if len(shown) > 1 else "", pod, PodLog(found.client, found.namespace, pod.state.name))
        for pod in shown
    ]
    while True:
        for title, _, reader in readers:
            _print(title, await reader.more())
        if not wanted.follow or await _all_ended(found, name, [pod for _, pod, _ in readers]):
            break
        await asyncio.sleep(_EVERY)


async def _all_ended(found: Reader, name: str, pods: Sequence[StagePod]) -> bool:
    names = {pod.state.name for pod in pods}
    return not any(pod.state.name in names and not pod.state.ended for pod in await found.pods(name))


def _newest(pods: Sequence[StagePod], wanted: Wanted) -> Iterator[StagePod]:
    """For each rank of the stage, its newest pod, or the one before it."""
    stage = wanted.stage or pods[-1].stage
    for rank in sorted({pod.state.index for pod in pods if pod.stage == stage}):
        of_rank = [pod for pod in pods if pod.stage == stage and pod.state.index == rank]
        if wanted.previous and len(of_rank) < 2:  # noqa: PLR2004 - the one before the newest
            raise CliError(f"rank {rank} of stage {stage} has no pod before its newest", exit_code=ExitCode.NOT_FOUND)
        yield of_rank[-2 if wanted.previous else -1]


def _title(pod: StagePod) -> str:
    return f"{pod.stage.value}-{pod.state.index} {pod.state.name}"


def _print(title: str, lines: Iterable[str]) -> None:
    head, shown = f"[{title}] " if title else "", shower()
    for line in lines:
        sys.stdout.write(f"{head}{shown(line)}\n")
    sys.stdout.flush()


def _save(path: Path, texts: Iterable[tuple[str, str]]) -> None:
    parts = [f"==> {title} <==\n{text.rstrip()}\n" for title, text in texts]
    path.write_text("\n".join(parts), encoding="utf-8")
    sys.stdout.write(f"wrote {len(parts)} logs to {path}\n")
