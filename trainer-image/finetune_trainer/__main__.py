"""`python -m finetune_trainer prepare|train|publish`: one stage, as the first process of its pod."""

from __future__ import annotations

import argparse
import os
import sys

from finetune_trainer.contract import Stage
from finetune_trainer.pod import supervisor


def main() -> None:
    supervisor.hold_signals()
    parser = argparse.ArgumentParser(prog="finetune_trainer", description=__doc__)
    parser.add_argument("stage", choices=[stage.value for stage in Stage])
    stage = Stage(parser.parse_args().stage)
    sys.exit(supervisor.run(stage, os.environ))


if __name__ == "__main__":
    main()
