"""Pods of a manifest as processes: what they are started with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.unit.local.builders import Manifest, job_manifest

from finetune_operator.local.folders import JobFolder
from finetune_operator.local.podspec import Launch, NotLocalError, Pod, Surroundings, launch
from finetune_trainer.contract import Stage


def pod(index: int = 0) -> Pod:
    return Pod(f"pig-train-{index}", "team", "uid-1", Stage.TRAIN, index, master_port=4711, threads=3)


def launched(tmp_path: Path, manifest: Manifest, index: int = 0, **environ: str) -> Launch:
    folder = JobFolder.of(tmp_path, "team", "pig")
    folder.own_claim("pig-workspace").mkdir(parents=True)
    around = Surroundings(folder, lambda name: tmp_path / "secrets" / name, environ, gpus=("0", "1", "2", "3"))
    return launch(manifest, pod(index), around)


def with_env(*entries: dict[str, Any]) -> Manifest:
    manifest = job_manifest("pass")
    manifest["spec"]["template"]["spec"]["containers"][0]["env"] += entries
    return manifest


def test_python_is_this_environments_python(tmp_path: Path) -> None:
    argv = launched(tmp_path, job_manifest("pass")).argv
    assert Path(argv[0]).is_absolute()
    assert argv[1:] == ("-c", "pass")


def test_an_image_without_command_runs_the_trainer(tmp_path: Path) -> None:
    manifest = job_manifest("pass")
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    del container["command"]
    container["args"] = ["train"]
    assert launched(tmp_path, manifest).argv[1:] == ("-m", "finetune_trainer", "train")


def test_each_pod_sees_the_gpus_it_asks_for_and_no_others(tmp_path: Path) -> None:
    manifest = job_manifest("pass", pods=2)
    manifest["spec"]["template"]["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": 2}}
    assert launched(tmp_path, manifest, index=1).env["CUDA_VISIBLE_DEVICES"] == "2,3"


def test_the_users_home_and_caches_are_kept(tmp_path: Path) -> None:
    env = launched(
        tmp_path, with_env({"name": "HF_HOME", "value": "/scratch/hf"}), HOME="/home/me", HF_HOME="/cache"
    ).env
    assert (env["HOME"], env["HF_HOME"]) == ("/home/me", "/cache")


def test_threads_are_the_machines_share_whatever_the_shell_says(tmp_path: Path) -> None:
    assert launched(tmp_path, job_manifest("pass"), OMP_NUM_THREADS="64").env["OMP_NUM_THREADS"] == "3"


def test_the_downward_api_answers(tmp_path: Path) -> None:
    fields = {
        "NAME": "metadata.name",
        "SPACE": "metadata.namespace",
        "INDEX": "metadata.annotations['batch.kubernetes.io/job-completion-index']",
        "STAGE": "metadata.labels['finetune-operator.io/stage']",
    }
    manifest = with_env(
        *({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()),
        {"name": "GREETING", "value": "$(NAME) in $(SPACE), $(UNKNOWN)"},
    )
    env = launched(tmp_path, manifest).env
    assert [env[name] for name in fields] == ["pig-train-0", "team", "0", "train"]
    assert env["GREETING"] == "pig-train-0 in team, $(UNKNOWN)"


def test_a_secret_key_is_read_from_its_file_else_from_the_environment(tmp_path: Path) -> None:
    manifest = with_env({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}})
    assert launched(tmp_path, manifest, HF_TOKEN="from-shell").env["HF_TOKEN"] == "from-shell"  # noqa: S105, S106
    (tmp_path / "secrets/hub").mkdir(parents=True)
    (tmp_path / "secrets/hub/token").write_text("from-file\n")
    folder = JobFolder.of(tmp_path, "team", "pig")
    around = Surroundings(folder, lambda name: tmp_path / "secrets" / name, {})
    assert launch(manifest, pod(), around).env["HF_TOKEN"] == "from-file"  # noqa: S105


def test_a_value_that_only_a_cluster_knows_is_refused_by_name(tmp_path: Path) -> None:
    manifest = with_env({"name": "LIMIT", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}})
    with pytest.raises(NotLocalError, match="variable LIMIT"):
        launched(tmp_path, manifest)


def test_folders_of_mounts_hold_links_to_what_is_mounted(tmp_path: Path) -> None:
    manifest = job_manifest("pass")
    spec = manifest["spec"]["template"]["spec"]
    spec["volumes"].append({"name": "hub", "secret": {"secretName": "hub"}})
    spec["volumes"].append({"name": "data", "persistentVolumeClaim": {"claimName": "data"}})
    mounts = spec["containers"][0]["volumeMounts"]
    mounts.append({"name": "hub", "mountPath": "/var/run/finetune/secrets/hub"})
    mounts.append({"name": "data", "mountPath": "/volumes/data", "subPath": "part"})
    made = launched(tmp_path, manifest)
    made.prepare()
    assert Path(made.env["FINETUNE_SECRETS"], "hub").resolve() == tmp_path / "secrets/hub"
    assert Path(made.env["FINETUNE_VOLUMES"], "data").resolve() == tmp_path / "team/_volumes/data/part"


def test_a_volume_of_the_downward_api_shows_annotations_and_labels_of_the_pod(tmp_path: Path) -> None:
    manifest = job_manifest("pass")
    template = manifest["spec"]["template"]
    template["metadata"] = {"annotations": {"run": '{"a": 1}'}, "labels": {"team": "x"}}
    fields = {
        "run.json": "metadata.annotations['run']",
        "team": "metadata.labels['team']",
        "none": "metadata.labels['x']",
    }
    items = [{"path": path, "fieldRef": {"fieldPath": field}} for path, field in fields.items()]
    template["spec"]["volumes"][0] = {"name": "config", "downwardAPI": {"items": items}}
    made = launched(tmp_path, manifest)
    made.prepare()
    config = Path(made.env["FINETUNE_RUN_CONFIG"])
    assert config.read_text() == '{"a": 1}'
    assert [(config.parent / name).read_text() for name in ("team", "none")] == ["x", ""]


def test_a_volume_that_shows_resources_is_refused_by_name(tmp_path: Path) -> None:
    manifest = job_manifest("pass")
    item = {"path": "cpu", "resourceFieldRef": {"resource": "limits.cpu"}}
    manifest["spec"]["template"]["spec"]["volumes"].append({"name": "sizes", "downwardAPI": {"items": [item]}})
    with pytest.raises(NotLocalError, match="volume sizes shows resources"):
        launched(tmp_path, manifest)


def test_a_config_map_of_the_users_own_is_refused_by_name(tmp_path: Path) -> None:
    manifest = job_manifest("pass")
    manifest["spec"]["template"]["spec"]["volumes"][0] = {"name": "config", "configMap": {"name": "theirs"}}
    with pytest.raises(NotLocalError, match="volume config is a configMap"):
        launched(tmp_path, manifest)
