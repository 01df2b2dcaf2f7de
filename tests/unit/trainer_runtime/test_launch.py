from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from finetune_trainer.contract import Env, RunConfig
from finetune_trainer.pod import launch
from finetune_trainer.pod.environment import cpu_limit, threads_for_each, worker_environment
from finetune_trainer.pod.output import Relay
from finetune_trainer.training.trained import run_digest


def run_config(**changes: object) -> RunConfig:
    return RunConfig.model_validate(
        {
            "job": {"name": "j", "namespace": "n", "uid": "u"},
            "stage": "prepare",
            "model": {"uri": "file:///m"},
            "datasets": [{"uri": "file:///d"}],
            "workspace": {"persistent": True},
            "output": {"uri": "file:///o"},
            **changes,
        }
    )


def test_several_processes_on_cpu_are_launched_as_accelerate_really_launches_them() -> None:
    config = run_config(topology={"nodes": 2, "processesPerNode": 3})
    environ: dict[str, str] = {Env.MASTER_ADDR: "job-train-0.job", Env.MASTER_PORT: "1234", Env.NODE_RANK: "1"}
    settings = launch.launch_config(config, environ)
    assert settings["distributed_type"] == "MULTI_GPU"
    assert (settings["num_machines"], settings["num_processes"], settings["machine_rank"]) == (2, 6, 1)
    assert (settings["main_process_ip"], settings["main_process_port"]) == ("job-train-0.job", 1234)


def test_one_process_is_launched_alone() -> None:
    assert launch.launch_config(run_config(), {})["distributed_type"] == "NO"


@pytest.mark.parametrize(
    ("files", "limit"),
    [
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "150000 100000\n"}, 1.5),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4.0),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_the_cpu_limit_is_the_cgroups(tmp_path: Path, files: dict[str, str], limit: float | None) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert cpu_limit(tmp_path) == limit


def test_processes_share_the_cpus_and_each_gets_one_thread_at_least(tmp_path: Path) -> None:
    assert threads_for_each(1, tmp_path) == len(os.sched_getaffinity(0))
    assert threads_for_each(10_000, tmp_path) == 1


def test_caches_move_to_scratch_when_the_home_cannot_be_written(tmp_path: Path) -> None:
    env = worker_environment({"HOME": "/", "HF_HOME": "/models"}, run_config(), tmp_path)
    assert env["HOME"] == str(tmp_path / "home")
    assert env["HF_HOME"] == "/models"
    assert env["TRITON_CACHE_DIR"].startswith(str(tmp_path))
    assert int(env["OMP_NUM_THREADS"]) >= 1


def test_gpu_memory_grows_in_segments_and_nccl_handles_errors_as_torch_does(tmp_path: Path) -> None:
    env = worker_environment({"HOME": str(tmp_path)}, run_config(), tmp_path)
    assert env["PYTORCH_CUDA_ALLOC_CONF"] == "expandable_segments:True"
    assert "TORCH_NCCL_ASYNC_ERROR_HANDLING" not in env


def test_what_the_user_set_is_kept(tmp_path: Path) -> None:
    env = worker_environment({"HOME": str(tmp_path), "OMP_NUM_THREADS": "7"}, run_config(), tmp_path)
    assert env["OMP_NUM_THREADS"] == "7"
    assert "TRITON_CACHE_DIR" not in env


def test_a_run_is_the_same_when_only_its_micro_batches_change() -> None:
    def digest(**trainer: object) -> str:
        return run_digest(run_config(training={"trainerConfig": trainer}))

    assert digest(learning_rate=1e-3, per_device_train_batch_size=4) == digest(
        learning_rate=1e-3, per_device_train_batch_size=2, gradient_accumulation_steps=2
    )
    assert digest(learning_rate=1e-3) != digest(learning_rate=1e-4)


def test_workers_lines_are_passed_on_and_the_last_are_remembered() -> None:
    target = io.StringIO()
    relay = Relay(target, raw=True)
    os.write(relay.write_end, b'{"event": "one"}\nplain\n')
    relay.start()
    assert relay.tail() == ['{"event": "one"}', "plain"]
    assert target.getvalue() == '{"event": "one"}\nplain\n'
