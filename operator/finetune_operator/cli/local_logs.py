"""The log files of a local run: one for each stage and rank, the attempts one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from finetune_operator.cli.errors import CliError
from finetune_operator.local.folders import JobFolder
from finetune_operator.local.process import ATTEMPT_MARK
from finetune_trainer.contract import ExitCode, Stage

_ORDER: Final = {stage: number for number, stage in enumerate(Stage)}


@dataclass(frozen=True)
class LocalLog:
    stage: Stage
    rank: int
    path: Path

    @property
    def title(self) -> str:
        return f"{self.stage.value}-{self.rank}"

    def text(self) -> str:
        return self.path.read_text(encoding="utf-8", errors="replace")

    def attempt(self, back: int) -> str:
        """What the newest attempt wrote, or the one so many before it."""
        attempts = ("\n" + self.text()).split(f"\n{ATTEMPT_MARK}")[1:]
        if back >= len(attempts):
            raise CliError(f"{self.title} has no attempt before its newest", exit_code=ExitCode.NOT_FOUND)
        return attempts[-1 - back].partition("\n")[2]

    def tail(self) -> Callable[[], list[str]]:
        """A function that returns the whole lines written since it was last called."""
        position = 0

        def read() -> list[str]:
            nonlocal position
            with self.path.open("rb") as file:
                file.seek(position)
                whole, newline, _ = file.read().rpartition(b"\n")
            position += len(whole) + len(newline)
            return whole.decode(errors="replace").splitlines()

        return read


def local_logs(folder: JobFolder) -> list[LocalLog]:
    """Every log of the job, in the order of the stages and ranks."""
    found = []
    for path in folder.logs_dir.glob("*-*.log"):
        stage, _, rank = path.stem.rpartition("-")
        if stage in list(Stage) and rank.isdigit():
            found.append(LocalLog(Stage(stage), int(rank), path))
    return sorted(found, key=lambda log: (_ORDER[log.stage], log.rank))
