"""What every process that does a stage's work does around it: reads its context, and leaves a Result."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NoReturn

from finetune_trainer import log
from finetune_trainer.contract import Result, RunConfig, Stage
from finetune_trainer.errors import StageError
from finetune_trainer.pod.handshake import Handshake
from finetune_trainer.pod.report import Reporter
from finetune_trainer.pod.result import leave, of_exception
from finetune_trainer.pod.runconfig import node_rank, read_config
from finetune_trainer.workspace import Paths

_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True)
class StageContext:
    """What a worker knows before it has begun."""

    config: RunConfig
    paths: Paths
    files: Handshake
    reporter: Reporter


def die_with_parent() -> None:
    """Let the kernel kill this process when the one that started it ends, however that ends."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)


def work(stage: Stage, body: Callable[[StageContext], Result]) -> NoReturn:
    """Do a stage's work, leave its Result for the supervisor, and end with its exit code.

    Ends without running destructors: a process group whose peers are gone may never finish its own.
    """
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    paths = Paths.from_env(os.environ)
    files = Handshake(paths.scratch)
    reporter = Reporter(stage, files.progress_file)
    try:
        config = read_config(stage, os.environ)
        log.configure(config, stage=stage.value, rank=int(os.environ.get("RANK") or node_rank(os.environ)))
        result = body(StageContext(config, paths, files, reporter))
    except Exception as error:  # noqa: BLE001 - whatever it is, it becomes a Result
        if not isinstance(error, StageError):
            log.logger().error("stage failed", exc_info=error)
        reached = reporter.progress
        result = of_exception(stage, error).model_copy(
            update={"step": reached.step, "resumed_from_step": reached.resumed_from_step}
        )
    leave(files.results, int(os.environ.get("LOCAL_RANK") or 0), result)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(result.exit_code)
