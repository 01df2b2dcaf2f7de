"""`python -m finetune_trainer.stages prepare|publish`: the stages that one process does."""

from __future__ import annotations

import signal
import sys
from typing import NoReturn

from finetune_trainer.contract import Result, Stage
from finetune_trainer.errors import Interrupted
from finetune_trainer.pod.worker import StageContext, work
from finetune_trainer.prepare import run as prepare
from finetune_trainer.publish import run as publish


def _stop(_signal: int, _frame: object) -> NoReturn:
    raise Interrupted("stopped before it was done; it starts again from the beginning")


def _run(context: StageContext) -> Result:
    signal.signal(signal.SIGTERM, _stop)
    stage = prepare if context.config.stage is Stage.PREPARE else publish
    return stage(context.config, context.paths, context.reporter.notify)


if __name__ == "__main__":
    work(Stage(sys.argv[1]), _run)
