"""Runs the installed command, as a user does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

FINETUNE = Path(sys.executable).with_name("finetune")


def finetune(*arguments: str | Path, cwd: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FINETUNE, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "COLUMNS": "120", **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
