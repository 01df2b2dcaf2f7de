"""A tiny random model, a tiny dataset prepared by the real prepare stage, and the pods of a job as processes."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from tests.tiny_model import write as tiny_model

from finetune_trainer.contract import Env, PreparedData, Result, RunConfig, Stage
from finetune_trainer.workspace import Paths

START_SECONDS = 300


@dataclass(frozen=True)
class Pod:
    """A running stage; its process is the supervisor."""

    process: subprocess.Popen[str]
    log: Path
    termination_log: Path

    def end(self) -> tuple[int, Result]:
        """Waits for the end; the exit code and the last word."""
        code = self.process.wait(START_SECONDS)
        return code, Result.model_validate_json(self.termination_log.read_bytes())

    def workers(self) -> list[int]:
        """Ids of the processes that train."""
        return [pid for pid in descendants(self.process.pid) if "finetune_trainer.train" in command_line(pid)]


@dataclass(frozen=True)
class Site:
    """A job's folders and configuration."""

    root: Path
    config: RunConfig

    def but(self, **changes: Any) -> Site:
        """The same folders with another configuration; keys are RunConfig's, `training` merges."""
        data = self.config.model_dump(mode="json", by_alias=True, exclude_none=True)
        data["training"].update(changes.pop("training", {}))
        return replace(self, config=RunConfig.model_validate({**data, **changes}))

    def paths(self, rank: int = 0) -> Paths:
        scratch = self.root / f"scratch-{rank}"
        scratch.mkdir(exist_ok=True)
        return Paths(self.root / "workspace", scratch, self.root / "secrets", self.root / "volumes")

    def environ(self, rank: int = 0, **extra: str) -> dict[str, str]:
        run = self.root / f"run-{rank}.json"
        run.write_text(self.config.to_json())
        paths = self.paths(rank)
        own = {
            Env.RUN_CONFIG: str(run),
            Env.WORKSPACE: str(paths.workspace),
            Env.SCRATCH: str(paths.scratch),
            Env.SECRETS: str(paths.secrets),
            Env.VOLUMES: str(paths.volumes),
            Env.TERMINATION_LOG: str(self.root / f"termination-{rank}"),
            Env.PROGRESS_PORT: "0",
            Env.NODE_RANK: str(rank),
            "OMP_NUM_THREADS": "1",
        }
        return {**os.environ, **{str(key): value for key, value in own.items()}, **extra}

    def start(self, rank: int = 0, **extra: str) -> Pod:
        env, log = self.environ(rank, **extra), self.root / f"log-{rank}"
        command = [sys.executable, "-m", "finetune_trainer", self.config.stage.value]
        with log.open("a") as output:
            process = subprocess.Popen(command, env=env, stdout=output, stderr=output, text=True)
        return Pod(process, log, Path(env[Env.TERMINATION_LOG]))

    def start_gang(self) -> list[Pod]:
        place = {str(Env.MASTER_ADDR): "127.0.0.1", str(Env.MASTER_PORT): str(free_port())}
        return [self.start(rank, **place) for rank in range(self.config.topology.nodes)]

    def fresh(self, root: Path) -> Site:
        """The same prepared job elsewhere, not trained yet."""
        root.mkdir(exist_ok=True)
        shutil.copytree(self.root / "workspace", root / "workspace")
        return replace(self, root=root)


def descendants(pid: int) -> list[int]:
    children = [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return [*children, *(below for child in children for below in descendants(child))]


def command_line(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def tiny_dataset(file: Path) -> None:
    draw = random.Random(0)  # noqa: S311 - words to train on
    rows = [" ".join(f"w{draw.randrange(125)}" for _ in range(draw.randrange(8, 24))) for _ in range(56)]
    file.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))


def config_for(root: Path, stage: Stage, prepared: PreparedData | None = None) -> RunConfig:
    return RunConfig.model_validate(
        {
            "job": {"name": "tiny", "namespace": "tests", "uid": "0"},
            "stage": stage,
            "model": {"uri": f"file://{root}/model"},
            "datasets": [{"uri": f"file://{root}/rows.jsonl"}],
            "data": {"validationFraction": 0.15},
            "training": {
                "method": "lora",
                "maxSequenceLength": 32,
                "peftConfig": {"r": 4, "lora_dropout": 0.1},
                "trainerConfig": {"num_train_epochs": 2, "per_device_train_batch_size": 4, "learning_rate": 0.01},
            },
            "workspace": {"persistent": True},
            "checkpoints": {"everySteps": 4},
            "output": {"uri": f"file://{root}/output"},
            "prepared": prepared and prepared.model_dump(mode="json", by_alias=True),
        }
    )


@pytest.fixture(scope="session")
def prepared_site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A job that has been prepared. Read-only: use `site`."""
    from finetune_trainer import prepare  # noqa: PLC0415 - as above

    root = tmp_path_factory.mktemp("job")
    tiny_model(root / "model")
    tiny_dataset(root / "rows.jsonl")
    site = Site(root, config_for(root, Stage.PREPARE))
    result = prepare.run(site.config, site.paths(), lambda _: None)
    return Site(root, config_for(root, Stage.TRAIN, result.prepared))


@pytest.fixture
def site(prepared_site: Site, tmp_path: Path) -> Site:
    return prepared_site.fresh(tmp_path)
