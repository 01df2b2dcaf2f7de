"""The train stage's product: final weights, the record that makes a second run of the stage a no-op, the hand-over."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, ValidationError

from finetune_trainer.atomic import replace_file
from finetune_trainer.contract import Result, RunConfig
from finetune_trainer.training import manifest
from finetune_trainer.training.manifest import FileDigest, TornError
from finetune_trainer.uris.address import Address
from finetune_trainer.workspace import Paths, replacing_folder, writing

if TYPE_CHECKING:
    from finetune_trainer.uris.folder import Folder

_PLAN_KEYS: Final = ("per_device_train_batch_size", "gradient_accumulation_steps", "gradient_checkpointing")
"""Arguments that a new plan changes without changing what is learnt."""


_RECORD: Final = "record.json"


class Record(BaseModel):
    """Beside the weights: which run made them and what it reported."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    run: str
    result: Result
    files: tuple[FileDigest, ...]


def run_digest(config: RunConfig) -> str:
    """sha256 of everything that decides the weights: the model, the data, how it is trained.

    Left out: where things are written, how many ranks share the work, how a step is cut into micro-batches.
    """
    training = config.training.model_dump(mode="json", by_alias=True)
    training["trainerConfig"] = {
        key: value for key, value in config.training.trainer_config.items() if key not in _PLAN_KEYS
    }
    decides = {
        "model": config.model.model_dump(mode="json"),
        "datasets": [source.model_dump(mode="json") for source in config.datasets],
        "data": config.data.model_dump(mode="json"),
        "training": training,
        "prepared": config.prepared.digest if config.prepared else None,
        "modelRevision": config.prepared.model_revision if config.prepared else None,
    }
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def record_file(paths: Paths) -> Path:
    return paths.trained_dir.with_name(f"{paths.trained_dir.name}.json")


def earlier_result(config: RunConfig, paths: Paths) -> Result | None:
    """What this very run reported when it has already been done and its weights are still there."""
    record = _local_record(paths) or _handed_over_record(config, paths)
    return record.result if record is not None and record.run == run_digest(config) else None


def _local_record(paths: Paths) -> Record | None:
    try:
        record = Record.model_validate_json(record_file(paths).read_bytes())
        manifest.check_sizes(paths.trained_dir, record.files)
    except (FileNotFoundError, ValidationError, TornError):
        return None
    return record


def _handed_over_record(config: RunConfig, paths: Paths) -> Record | None:
    folder = _handover(config, paths)
    stored = folder.read(_RECORD) if folder is not None else None
    try:
        return None if stored is None else Record.model_validate_json(stored)
    except ValidationError:
        return None


def hand_over(config: RunConfig, paths: Paths, notify: Callable[[str], None]) -> None:
    """Put the weights and their record where the publish stage finds them, when the workspace goes with the pod."""
    folder = _handover(config, paths)
    if folder is not None:
        from finetune_trainer.uris import transfer  # noqa: PLC0415 - as above

        folder.remove(_RECORD)
        transfer.upload(paths.trained_dir, folder, notify)
        folder.put(record_file(paths), _RECORD)


def _handover(config: RunConfig, paths: Paths) -> Folder | None:
    policy = config.workspace
    if policy.persistent or policy.handover_uri is None:
        return None
    from finetune_trainer.uris.folder import open_folder  # noqa: PLC0415 - a second of imports, rarely needed

    secret = paths.secret_dir(policy.handover_secret)
    return open_folder(Address(policy.handover_uri, "spec.workspace", "output", secret), paths)


def save_weights(paths: Paths, save: Callable[[Path], None]) -> None:
    """Have `save` write the weights into a new folder, and put that in place of the old one at once."""
    record_file(paths).unlink(missing_ok=True)
    with replacing_folder(paths.trained_dir) as folder:
        save(folder)


def save_record(config: RunConfig, paths: Paths, result: Result) -> None:
    """Remember the Result; from now on the stage is done."""
    record = Record(run=run_digest(config), result=result, files=manifest.scan(paths.trained_dir))
    with writing("the trained model's record", "spec.workspace"):
        replace_file(record_file(paths), record.model_dump_json(by_alias=True, exclude_none=True))
