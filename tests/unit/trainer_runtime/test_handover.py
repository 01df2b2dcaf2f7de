"""A workspace that goes with its pod."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.unit.trainer_runtime.test_launch import run_config

from finetune_trainer.contract import ExitCode, Result, RunConfig, Stage
from finetune_trainer.training import manifest, trained
from finetune_trainer.uris.address import Address
from finetune_trainer.uris.folder import LocalFolder
from finetune_trainer.uris.transfer import download
from finetune_trainer.workspace import Paths


def job(home: Path) -> RunConfig:
    return run_config(workspace={"persistent": False, "handoverUri": f"file://{home}"})


def save(folder: Path) -> None:
    (folder / "adapter.safetensors").write_bytes(b"weights")


def test_a_pod_that_is_made_again_finds_that_its_work_was_handed_over(tmp_path: Path) -> None:
    paths = Paths(tmp_path / "w", tmp_path / "s", tmp_path / "secrets", tmp_path / "volumes")
    config = job(tmp_path / "home")
    result = Result(stage=Stage.TRAIN, exit_code=ExitCode.OK, message="trained", step=3)
    trained.save_weights(paths, save)
    digest = manifest.digest_of(paths.trained_dir)
    trained.save_record(config, paths, result)
    trained.hand_over(config, paths, lambda _: None)
    shutil.rmtree(tmp_path / "w")

    assert trained.earlier_result(config, paths) == result
    download(
        LocalFolder(Address(f"file://{tmp_path}/home", "spec", "output"), tmp_path / "home"), tmp_path / "d", print
    )
    assert manifest.digest_of(tmp_path / "d") == digest
    other = run_config(
        workspace=config.workspace.model_dump(by_alias=True), training={"trainerConfig": {"learning_rate": 1}}
    )
    assert trained.earlier_result(other, paths) is None
