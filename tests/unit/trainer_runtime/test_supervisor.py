"""The first process of a pod, with stages that end before any model is touched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from finetune_trainer.contract import Env, ExitCode, Result, Stage
from finetune_trainer.pod import supervisor
from finetune_trainer.pod.supervisor import Ending

RUN = {
    "job": {"name": "j", "namespace": "n", "uid": "u"},
    "stage": "prepare",
    "model": {"uri": "file:///nowhere"},
    "datasets": [{"uri": "file:///nowhere.jsonl"}],
    "workspace": {"persistent": True},
    "output": {"uri": "file:///nowhere-either"},
}


@pytest.fixture
def environ(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    return {
        **os.environ,
        Env.RUN_CONFIG: str(tmp_path / "run.json"),
        Env.WORKSPACE: str(tmp_path / "workspace"),
        Env.SCRATCH: str(tmp_path / "scratch"),
        Env.SECRETS: str(tmp_path / "secrets"),
        Env.VOLUMES: str(tmp_path / "volumes"),
        Env.TERMINATION_LOG: str(tmp_path / "termination"),
        Env.PROGRESS_PORT: "0",
        "OMP_NUM_THREADS": "1",
    }


def last_word(environ: dict[str, str]) -> Result:
    return Result.model_validate_json(Path(environ[Env.TERMINATION_LOG]).read_bytes())


def test_a_run_configuration_that_is_no_json_is_invalid_config(environ: dict[str, str]) -> None:
    Path(environ[Env.RUN_CONFIG]).write_text("{")
    assert supervisor.run(Stage.PREPARE, environ) == ExitCode.INVALID_CONFIG
    assert "run configuration" in last_word(environ).message


def test_an_invalid_field_of_the_run_configuration_is_named(environ: dict[str, str]) -> None:
    Path(environ[Env.RUN_CONFIG]).write_text(json.dumps({**RUN, "topology": {"nodes": 0}}))
    assert supervisor.run(Stage.PREPARE, environ) == ExitCode.INVALID_CONFIG
    assert last_word(environ).field == "topology.nodes"


def test_a_run_configuration_for_another_stage_is_refused(environ: dict[str, str]) -> None:
    assert supervisor.run(Stage.PUBLISH, environ) == ExitCode.INVALID_CONFIG
    assert "for prepare" in last_word(environ).message


def test_a_missing_variable_is_named(environ: dict[str, str]) -> None:
    del environ[Env.WORKSPACE]
    assert supervisor.run(Stage.PREPARE, environ) == ExitCode.INVALID_CONFIG
    assert Env.WORKSPACE in last_word(environ).message


def test_the_supervisor_never_imports_torch() -> None:
    code = "import sys; import finetune_trainer.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_stage_that_is_told_to_stop_ends_as_interrupted(environ: dict[str, str]) -> None:
    command = [sys.executable, "-m", "finetune_trainer", "prepare"]
    with subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert "starting" in process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        process.stdout.read()
        code = process.wait(60)
    assert code == ExitCode.INTERRUPTED
    assert last_word(environ).exit_code == code


def test_workers_that_outlive_the_grace_period_count_as_interrupted() -> None:
    ending = Ending(status=-9, stop_requested=True, out_of_time=True)
    result = supervisor._judge(Stage.TRAIN, ending, None, [])  # noqa: SLF001 - the one decision in the module
    assert result.exit_code is ExitCode.INTERRUPTED
    assert result.advice
    assert "terminationGracePeriodSeconds" in result.advice
