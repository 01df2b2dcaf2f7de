"""Reading what a stage was given: its RunConfig and its place in the gang."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import ValidationError

from finetune_trainer.contract import CONTRACT_VERSION, Env, RunConfig, Stage, Versioned
from finetune_trainer.errors import InvalidConfig


def read_config(stage: Stage, environ: Mapping[str, str]) -> RunConfig:
    """The stage's RunConfig. Raises InvalidConfig that names the file or the field that is wrong."""
    name = environ.get(Env.RUN_CONFIG)
    if not name:
        raise InvalidConfig(f"the environment variable {Env.RUN_CONFIG} is not set")
    try:
        text = Path(name).read_bytes()
        _check_version(Versioned.model_validate_json(text).version)
        config = RunConfig.model_validate_json(text)
    except OSError as error:
        raise InvalidConfig(f"cannot read the run configuration {name}: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or None
        raise InvalidConfig(f"run configuration: {field or 'the file'}: {first['msg']}", field=field) from error
    if config.stage is not stage:
        raise InvalidConfig(f"asked to run stage {stage}, but the run configuration is for {config.stage}")
    return config


def _check_version(version: int) -> None:
    """A stage that ignored what a newer operator asks of it would do something else."""
    if version > CONTRACT_VERSION:
        raise InvalidConfig(
            f"the trainer's image is older than the operator: it reads run configurations of version "
            f"{CONTRACT_VERSION}, and this one has version {version}",
            field="version",
            advice="use the trainer image of the operator's version",
        )


def node_rank(environ: Mapping[str, str]) -> int:
    """The pod's number among the train stage's pods; 0 outside an Indexed Job."""
    return int(environ.get(Env.NODE_RANK) or 0)
