"""One rank, in this process: stopping, resuming, diverging, and being done."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.unit.trainer_runtime.conftest import Site

from finetune_trainer.contract import ExitCode, Result, Stage
from finetune_trainer.pod.handshake import Handshake
from finetune_trainer.pod.report import Reporter
from finetune_trainer.pod.worker import StageContext
from finetune_trainer.training import manifest, trained
from finetune_trainer.training.manifest import TornError

pytestmark = pytest.mark.slow


def train_here(site: Site) -> Result:
    from finetune_trainer.train import train  # noqa: PLC0415 - imports torch

    paths = site.paths()
    files = Handshake(paths.scratch)
    return train(StageContext(site.config, paths, files, Reporter(Stage.TRAIN, files.progress_file)))


def stop_early(site: Site) -> Result:
    """Trains one step."""
    stop = Handshake(site.paths().scratch).stop_file
    stop.touch()
    result = train_here(site)
    stop.unlink()
    return result


@pytest.mark.parametrize("method", ["lora", "qlora", "full"])
def test_a_stopped_and_resumed_run_ends_with_the_very_same_weights(site: Site, tmp_path: Path, method: str) -> None:
    changes: dict[str, Any] = {"method": method, **({"peftConfig": {}} if method == "full" else {})}
    site = site.but(training=changes)
    whole = train_here(site)
    other = site.fresh(tmp_path / "other")
    for name in ("checkpoints", "trained", "trained.json"):
        found = other.root / "workspace" / name
        shutil.rmtree(found) if found.is_dir() else found.unlink()

    stopped = stop_early(other)
    resumed = train_here(other)

    assert (stopped.exit_code, stopped.step) == (ExitCode.INTERRUPTED, 1)
    assert (resumed.exit_code, resumed.resumed_from_step) == (ExitCode.OK, 1)
    assert whole.trained
    assert resumed.trained
    assert resumed.trained.loss == whole.trained.loss
    assert resumed.trained.eval_loss == whole.trained.eval_loss
    assert resumed.trained.base_eval_loss == whole.trained.base_eval_loss
    assert resumed.trained.base_eval_loss is not None
    weights = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    ours, theirs = (place.paths().trained_dir / weights for place in (site, other))
    assert ours.read_bytes() == theirs.read_bytes()


def test_a_torn_checkpoint_is_named_and_skipped(site: Site) -> None:
    first = stop_early(site)
    checkpoints = site.paths().checkpoints_dir
    torn = checkpoints / "checkpoint-3"
    shutil.copytree(checkpoints / "checkpoint-1", torn)
    (torn / "optimizer.pt").write_bytes(b"half")
    with pytest.raises(TornError, match=r"optimizer\.pt has 4 of \d+ bytes"):
        manifest.verify(torn)

    result = train_here(site)

    assert first.exit_code is ExitCode.INTERRUPTED
    assert (result.exit_code, result.resumed_from_step) == (ExitCode.OK, 1)
    assert not torn.exists()


def test_weights_that_explode_end_the_run_and_keep_the_last_good_checkpoint(site: Site) -> None:
    trainer = {**site.config.training.trainer_config, "learning_rate": 1e30, "max_grad_norm": 0}
    site = site.but(training={"trainerConfig": trainer}, checkpoints={"everySteps": 1})

    result = train_here(site)

    assert result.exit_code is ExitCode.DIVERGED
    assert "became nan" in result.message or "became inf" in result.message
    kept = sorted(site.paths().checkpoints_dir.glob("checkpoint-*"))
    assert kept
    for folder in kept:
        assert manifest.verify(folder).facts.loss is not None


def test_a_finished_run_is_not_done_again(site: Site) -> None:
    result = train_here(site)

    assert trained.earlier_result(site.config, site.paths()) == result
    assert result.trained
    assert manifest.digest_of(site.paths().trained_dir) == result.trained.digest
    other = site.but(training={"trainerConfig": {"num_train_epochs": 3}})
    assert trained.earlier_result(other.config, site.paths()) is None
    (site.paths().trained_dir / "adapter_model.safetensors").write_bytes(b"cut")
    assert trained.earlier_result(site.config, site.paths()) is None


def test_a_checkpoint_of_another_global_batch_is_refused(site: Site) -> None:
    stop_early(site)
    trainer = {**site.config.training.trainer_config, "per_device_train_batch_size": 8}

    result = train_here(site.but(training={"trainerConfig": trainer}))

    assert result.exit_code is ExitCode.INVALID_CONFIG
    assert "4 rows a step" in result.message


def test_a_new_plan_that_keeps_the_global_batch_resumes(site: Site) -> None:
    stop_early(site)
    plan = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2}

    result = train_here(site.but(training={"trainerConfig": {**site.config.training.trainer_config, **plan}}))

    assert (result.exit_code, result.resumed_from_step) == (ExitCode.OK, 1)


def test_everybody_may_read_what_was_written(site: Site) -> None:
    train_here(site)

    for place in (site.paths().trained_dir, site.paths().checkpoints_dir / "checkpoint-24"):
        assert all(path.stat().st_mode & 0o004 for path in place.rglob("*")), place
