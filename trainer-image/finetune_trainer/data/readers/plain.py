"""`.txt`: a text a line."""

from __future__ import annotations

from pathlib import Path

from finetune_trainer.data.readers.base import Records
from finetune_trainer.data.readers.encoding import text_lines, undecodable


def plain_lines(path: Path) -> Records:
    for number, line in text_lines(path):
        if line.strip():
            yield number, undecodable(line) or {"text": line.rstrip("\r\n")}
