"""`.jsonl`: an object a line."""

from __future__ import annotations

import json
from pathlib import Path

from finetune_trainer.data.readers.base import Content, Records
from finetune_trainer.data.readers.encoding import text_lines, undecodable


def json_lines(path: Path) -> Records:
    for number, line in text_lines(path):
        if line.strip():
            yield number, json_object(line)


def json_object(text: str) -> Content:
    if (fault := undecodable(text)) is not None:
        return fault
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"is not JSON: {error}"
    return value if isinstance(value, dict) else f"is {type(value).__name__}, not an object"
