"""Whole pods: supervisors with their workers, alone and as a gang of two, killed and evicted."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.trainer_runtime.conftest import START_SECONDS, Pod, Site, free_port

from finetune_trainer.contract import ExitCode, Progress
from finetune_trainer.pod.handshake import Handshake
from finetune_trainer.pod.result import collect
from finetune_trainer.training import manifest

pytestmark = pytest.mark.slow

SECONDS_TO_NOTICE = 20
"""Generous: a busy machine takes long to tear down a launcher."""


def wait_for(condition: Callable[[], bool], pods: list[Pod]) -> None:
    deadline = time.monotonic() + START_SECONDS
    pause = signal.SIGUSR1  # nobody sends it: sigtimedwait is a sleep that a signal could end
    while not condition():
        assert time.monotonic() < deadline, "\n".join(pod.log.read_text()[-4000:] for pod in pods)
        assert all(pod.process.poll() is None for pod in pods), "\n".join(pod.log.read_text()[-4000:] for pod in pods)
        signal.sigtimedwait({pause}, 0.02)


def newest_step(site: Site) -> int:
    folder = site.root / "workspace" / "checkpoints"
    return max((int(path.name.partition("-")[2]) for path in folder.glob("checkpoint-*")), default=0)


def fetch(port: int, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return str(answer.read().decode())


def weights(site: Site) -> bytes:
    return (site.paths().trained_dir / "adapter_model.safetensors").read_bytes()


@pytest.fixture
def long_gang(site: Site) -> Site:
    trainer = {**site.config.training.trainer_config, "num_train_epochs": 6, "per_device_train_batch_size": 2}
    return site.but(training={"trainerConfig": trainer}, topology={"nodes": 2})


@pytest.mark.timeout(900)
def test_a_gang_that_lost_a_rank_and_was_evicted_ends_with_the_weights_of_one_left_alone(
    long_gang: Site, tmp_path: Path
) -> None:
    alone = long_gang.fresh(tmp_path / "alone")
    for code, result in [pod.end() for pod in alone.start_gang()]:
        assert (code, result.exit_code) == (0, ExitCode.OK), result
    assert manifest.read(alone.paths().checkpoints_dir / f"checkpoint-{newest_step(alone)}").facts.world_size == 2

    pods = long_gang.start_gang()
    wait_for(lambda: newest_step(long_gang) >= 4, pods)
    (victim,) = pods[1].workers()
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()
    (first_code, first), (second_code, _) = (pod.end() for pod in pods)
    assert time.monotonic() - killed < SECONDS_TO_NOTICE
    assert (first_code, second_code) == (ExitCode.PEER_LOST, ExitCode.KILLED)
    assert "another rank" in first.message

    before = newest_step(long_gang)
    pods = long_gang.start_gang()
    wait_for(lambda: newest_step(long_gang) > before, pods)
    pods[1].process.terminate()
    endings = [pod.end() for pod in pods]
    assert [code for code, _ in endings] == [ExitCode.INTERRUPTED, ExitCode.INTERRUPTED]
    (stopped_at,) = {result.step for _, result in endings}
    assert newest_step(long_gang) == stopped_at
    manifest.verify(long_gang.paths().checkpoints_dir / f"checkpoint-{stopped_at}")

    endings = [pod.end() for pod in long_gang.start_gang()]
    assert [code for code, _ in endings] == [0, 0]
    assert endings[0][1].resumed_from_step == stopped_at
    assert weights(long_gang) == weights(alone)


def test_a_lone_pod_serves_its_progress_and_ctrl_c_saves_before_it_ends(site: Site) -> None:
    site = site.but(training={"trainerConfig": {**site.config.training.trainer_config, "num_train_epochs": 500}})
    port = free_port()
    pod = site.start(FINETUNE_PROGRESS_PORT=str(port))
    wait_for(lambda: newest_step(site) >= 4, [pod])

    progress = Progress.model_validate_json(fetch(port, "/progress"))
    metrics = fetch(port, "/metrics")
    healthy = fetch(port, "/healthz")
    pod.process.send_signal(signal.SIGINT)
    code, result = pod.end()

    assert (progress.world_size, progress.message) == (1, "training")
    assert progress.step
    assert progress.total_steps == 6000
    assert progress.loss
    assert progress.base_eval_loss
    assert progress.trainable_parameters
    assert 'finetune_trainer_total_steps{stage="train"} 6000' in metrics
    assert healthy == "ok\n"
    assert (code, result.exit_code) == (ExitCode.INTERRUPTED, ExitCode.INTERRUPTED)
    assert newest_step(site) == result.step
    assert all(json.loads(line)["event"] for line in pod.log.read_text().splitlines() if line.startswith("{"))


def test_a_worker_that_sees_another_world_than_planned_refuses_to_train(site: Site) -> None:
    site = site.but(topology={"nodes": 2})
    results = Handshake(site.paths().scratch).results
    results.mkdir(parents=True)

    worker = subprocess.run(  # as `accelerate launch --cpu --num_processes 2` would start it
        [sys.executable, "-m", "finetune_trainer.train"], env=site.environ(), check=False, timeout=START_SECONDS
    )

    result = collect(results)
    assert worker.returncode == ExitCode.INTERNAL
    assert result
    assert "planned 2, but this process sees 1" in result.message
    assert not site.paths().trained_dir.exists()
