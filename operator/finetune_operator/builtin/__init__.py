"""The templates that come with the operator; it installs those that are missing, the CLI falls back to them."""

from __future__ import annotations

from functools import cache
from importlib import resources

import yaml

from finetune_operator.api.resources import ClusterFineTuneTemplate


@cache
def templates() -> tuple[ClusterFineTuneTemplate, ...]:
    """The built-in ClusterFineTuneTemplates, by name."""
    files = sorted(
        (file for file in resources.files(__package__).iterdir() if file.name.endswith(".yaml")),
        key=lambda file: file.name,
    )
    return tuple(ClusterFineTuneTemplate.model_validate(yaml.safe_load(file.read_text())) for file in files)
