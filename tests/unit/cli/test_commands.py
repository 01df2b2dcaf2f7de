"""The commands that need neither a trainer nor a cluster, as processes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.cli.invoke import finetune
from tests.unit.cli.test_jobfile import JOB

from finetune_operator.local.folders import JobFolder
from finetune_operator.plan.model.names import ANNOTATION_RUN_CONFIG
from finetune_trainer.contract import RunConfig, Stage


@pytest.fixture
def job(tmp_path: Path) -> Path:
    file = tmp_path / "job.yaml"
    file.write_text(JOB)
    return file


def test_help_names_every_command_and_version_tells_the_version(tmp_path: Path) -> None:
    text = finetune("--help", cwd=tmp_path).stdout
    assert all(command in text for command in ("run", "plan", "watch", "logs", "templates"))
    assert finetune("--version", cwd=tmp_path).stdout.startswith("finetune 0.")


@pytest.mark.parametrize("command", ["run", "plan", "watch", "logs", "templates"])
def test_the_help_of_each_command_has_examples(tmp_path: Path, command: str) -> None:
    done = finetune(command, "--help", cwd=tmp_path)
    assert (done.returncode, f"  finetune {command}" in done.stdout) == (0, True)


def test_help_loads_neither_pydantic_nor_the_client(tmp_path: Path) -> None:
    loaded = finetune("--help", cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1").stderr
    assert not any(name in loaded for name in ("| pydantic", "| kubernetes", "| yaml", "rich.markdown"))


def test_plan_prints_a_stream_of_manifests_after_the_resolved_config(tmp_path: Path, job: Path) -> None:
    done = finetune("plan", job, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "#   method: lora\n" in done.stdout
    objects = list(yaml.safe_load_all(done.stdout))
    jobs = [one for one in objects if one["kind"] == "Job"]
    assert [one["metadata"]["name"] for one in jobs] == ["pig-prepare", "pig-train", "pig-publish"]
    assert not any("ownerReferences" in one["metadata"] for one in objects)


def run_configs(objects: list[Any]) -> list[str]:
    pods = [one["spec"]["template"] for one in objects if one["kind"] == "Job"]
    return [pod["metadata"]["annotations"][ANNOTATION_RUN_CONFIG] for pod in pods]


def test_each_stage_of_a_plan_has_a_run_config_that_the_trainer_can_read(tmp_path: Path, job: Path) -> None:
    items = json.loads(finetune("plan", job, "-o", "json", cwd=tmp_path).stdout)["items"]
    assert [RunConfig.model_validate_json(text).stage for text in run_configs(items)] == list(Stage)


def test_the_run_config_of_a_printed_plan_has_a_line_for_each_value(tmp_path: Path, job: Path) -> None:
    text = finetune("plan", job, cwd=tmp_path).stdout
    assert f"{ANNOTATION_RUN_CONFIG}: |" in text
    assert text.count('"uri": "s3://bucket/data.jsonl",\n') == len(Stage)
    shown = run_configs(list(yaml.safe_load_all(text)))
    exact = run_configs(json.loads(finetune("plan", job, "-o", "json", cwd=tmp_path).stdout)["items"])
    assert list(map(json.loads, shown)) == list(map(json.loads, exact))


def test_plan_of_a_bad_job_ends_with_64_and_says_why(tmp_path: Path, job: Path) -> None:
    job.write_text(JOB.replace("gpus: 0", "gpu: 0"))
    done = finetune("plan", job, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (64, "")
    assert "did you mean gpus?" in done.stderr


def test_templates_lists_and_shows_what_is_built_in(tmp_path: Path) -> None:
    listed = finetune("templates", cwd=tmp_path).stdout
    assert all(name in listed for name in ("lora", "qlora", "full"))
    shown = yaml.safe_load(finetune("templates", "show", "qlora", cwd=tmp_path).stdout)
    assert shown["spec"]["training"]["method"] == "qlora"
    unknown = finetune("templates", "show", "qlra", cwd=tmp_path)
    assert (unknown.returncode, "known: full, lora, qlora" in unknown.stderr) == (66, True)


def test_a_job_that_wants_gpus_is_refused_where_there_are_none(tmp_path: Path, job: Path) -> None:
    job.write_text(JOB.replace("gpus: 0", "gpus: 2"))
    done = finetune("run", job, cwd=tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 64
    assert "asks for 2 GPUs, and this machine has no NVIDIA GPU" in done.stderr
    assert "spec.training.device: cpu" in done.stderr


def test_a_missing_secret_folder_is_named(tmp_path: Path, job: Path) -> None:
    job.write_text(JOB.replace('model"}', 'model", secretRef: {name: hub}}'))
    (tmp_path / "secrets").mkdir()
    done = finetune("run", job, "--secrets", "secrets", cwd=tmp_path)
    assert (done.returncode, "names the Secret hub" in done.stderr) == (64, True)


def test_a_second_run_of_the_same_job_is_refused(tmp_path: Path, job: Path) -> None:
    with JobFolder.of(tmp_path / ".finetune", "default", "pig").locked():
        done = finetune("run", job, cwd=tmp_path)
    assert (done.returncode, "already running here (process " in done.stderr) == (1, True)


def test_watch_without_a_cluster_says_what_to_do(tmp_path: Path) -> None:
    done = finetune("watch", "pig", cwd=tmp_path, KUBECONFIG=str(tmp_path / "none"), HOME=str(tmp_path))
    assert (done.returncode, "KUBECONFIG" in done.stderr) == (1, True)
    assert "Traceback" not in done.stderr
