"""The templates that TRL ships for training: those of the model families, with what the assistant generates marked."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final

_MARKER: Final = re.compile(r"\{%-?\s*generation\s*-?%\}")
_SUFFIX: Final = "_training"


@cache
def training_template(template: str) -> str | None:
    """What to train with instead of the model's own template; itself when it has markers, None for an unknown one."""
    return template if _MARKER.search(template) else _shipped().get(template)


def template_files() -> dict[str, str]:
    """TRL's files by name, without importing TRL, which takes seconds."""
    spec = find_spec("trl")
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    files = (file for folder in folders for file in Path(folder, "chat_templates").glob("*.jinja"))
    return {file.stem: file.read_text(encoding="utf-8") for file in files}


@cache
def _shipped() -> Mapping[str, str]:
    files = template_files()
    return {text: files[name + _SUFFIX] for name, text in files.items() if name + _SUFFIX in files}
