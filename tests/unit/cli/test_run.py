"""`finetune run` with the real trainer on a tiny model: the whole life of a job on this machine."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import pytest
import yaml
from tests.unit.cli.invoke import FINETUNE, finetune

from finetune_operator.api.status import JobStatus, Phase

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

PATIENCE = 500.0


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-m", "tests.tiny_model", folder], cwd=root, check=True, capture_output=True)
    return folder


@pytest.fixture
def write_job(tmp_path: Path, model: Path) -> Callable[..., Path]:
    """Writes `job.yaml` of a small job; what is given goes over its spec."""
    rows = [{"prompt": f"w{n % 100} w{n % 7}", "completion": f"w{n % 100}"} for n in range(120)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def write(steps: int, name: str = "tiny", **spec: Any) -> Path:
        blocks = {"max_steps": steps, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
        plain: dict[str, Any] = {
            "model": {"uri": f"file://{model}"},
            "template": {"name": "lora"},
            "datasets": [{"uri": f"file://{tmp_path}/rows.jsonl"}],
            "gpus": 0,
            "training": {"maxSequenceLength": 32, "trainerConfig": blocks},
            "checkpoints": {"every": 5},
        }
        job = {
            "apiVersion": "finetune-operator.io/v1alpha1",
            "kind": "FineTuneJob",
            "metadata": {"name": name},
            "spec": {**plain, **spec},
        }
        file = tmp_path / "job.yaml"
        file.write_text(yaml.safe_dump(job))
        return file

    return write


def read_status(folder: Path) -> JobStatus:
    try:
        return JobStatus.model_validate_json((folder / "status.json").read_text())
    except OSError:
        return JobStatus()


def run_until(folder: Path, holds: Callable[[JobStatus], bool]) -> subprocess.Popen[str]:
    """`finetune run`, left running once its status document is so."""
    process = subprocess.Popen(
        [FINETUNE, "run", "job.yaml", "--status-file", "status.json"], cwd=folder, stdout=subprocess.PIPE, text=True
    )
    deadline = monotonic() + PATIENCE
    while not holds(read_status(folder)):
        assert process.poll() is None, process.stdout and process.stdout.read()
        assert monotonic() < deadline, read_status(folder)
        sleep(0.1)
    return process


def pods_of(folder: Path) -> list[int]:
    """Processes that were started with this state folder."""
    found = []
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if str(folder / ".finetune").encode() in environ.read_bytes():
                found.append(int(environ.parent.name))
        except OSError:
            continue
    return found


def at_step(wanted: int) -> Callable[[JobStatus], bool]:
    def holds(status: JobStatus) -> bool:
        trains = status.phase is Phase.TRAINING and status.progress is not None
        return trains and status.progress is not None and (status.progress.step or 0) >= wanted

    return holds


def test_a_run_survives_ctrl_c_and_a_kill_and_ends_with_its_artifact(
    tmp_path: Path, write_job: Callable[..., Path]
) -> None:
    write_job(steps=150)

    process = run_until(tmp_path, at_step(10))
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 75, said
    assert "Run the same command again to resume" in said
    assert read_status(tmp_path).phase is Phase.SUSPENDED
    assert pods_of(tmp_path) == []

    process = run_until(tmp_path, lambda status: at_step(30)(status) and len(status.attempts) > 1)
    process.kill()
    process.wait()
    deadline = monotonic() + 20
    while pods_of(tmp_path):
        assert monotonic() < deadline, "processes outlived the runner"
        sleep(0.1)

    done = finetune("run", "job.yaml", "--status-file", "status.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Resuming the run that was interrupted" in done.stdout
    status = read_status(tmp_path)
    assert status.phase is Phase.SUCCEEDED
    assert ((status.trained and status.trained.resumed_from_step) or 0) >= 10
    assert status.restarts == 0
    volumes = tmp_path / ".finetune/default/tiny/volumes"
    assert list(volumes.glob("tiny-workspace-*/*/output/adapter_model.safetensors"))
    assert all(words in done.stdout for words in ("Held-out loss", "sha256", "PeftModel"))

    again = finetune("run", "job.yaml", cwd=tmp_path)
    assert (again.returncode, "nothing was run" in again.stdout) == (0, True)
    assert "--fresh" in again.stdout


def test_two_pods_train_together(tmp_path: Path, write_job: Callable[..., Path]) -> None:
    blocks = {"max_steps": 4, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 1}
    training = {"maxSequenceLength": 32, "device": "cpu", "trainerConfig": blocks}
    write_job(steps=4, gpus=2, gpusPerNode=1, training=training)
    done = finetune("run", "job.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    logs = tmp_path / ".finetune/default/tiny/logs"
    assert sorted(log.name for log in logs.glob("train-*")) == ["train-0.log", "train-1.log"]
    assert "2 x cpu" in done.stdout


def test_a_job_goes_on_from_another_jobs_checkpoint(tmp_path: Path, write_job: Callable[..., Path]) -> None:
    write_job(steps=5)
    done = finetune("run", "job.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    write_job(steps=8, name="second", checkpoints={"every": 5, "resumeFrom": {"job": "tiny"}})
    done = finetune("run", "job.yaml", "--status-file", "status.json", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    status = read_status(tmp_path)
    assert status.trained is not None
    assert (status.trained.resumed_from_step, status.trained.step) == (5, 8)


def test_bad_data_ends_with_its_exit_code_and_the_next_run_starts_over(
    tmp_path: Path, write_job: Callable[..., Path]
) -> None:
    write_job(steps=2)
    (tmp_path / "rows.jsonl").write_text('{"prompt": "w1"}\n' * 50)
    done = finetune("run", "job.yaml", cwd=tmp_path)
    assert done.returncode == 65, done.stdout + done.stderr
    assert "Failed (InvalidData)\nspec.datasets[0]" in done.stdout
    again = finetune("run", "job.yaml", cwd=tmp_path)
    assert (again.returncode, "The last run failed (InvalidData); starting over." in again.stdout) == (65, True)
