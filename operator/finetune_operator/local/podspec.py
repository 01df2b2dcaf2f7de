"""Turns a pod of a Job's manifest into a process: volumes become folders, paths in the environment follow.

`launch` only says which folders and links are needed; `Launch.prepare` makes them.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Final

from finetune_operator.local.folders import JobFolder
from finetune_operator.plan.model.names import CONTAINER
from finetune_trainer.contract import Env, Stage

_USERS_OWN: Final = frozenset({"HOME", "PATH", "HF_HOME", "XDG_CACHE_HOME"})
"""Where this machine's user keeps caches and logins: a pod's scratch folder is no better place here."""
_STAGE_FOLDERS: Final = frozenset({Env.WORKSPACE, Env.SCRATCH, Env.SECRETS, Env.VOLUMES})
_USUAL_GRACE: Final = 30.0
_VARIABLE: Final = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")


class NotLocalError(Exception):
    """A part of the pod that only a cluster can provide."""


@dataclass(frozen=True)
class Pod:
    """A pod to start: what the downward API and the Job controller tell it, and its share of the machine."""

    name: str
    namespace: str
    uid: str
    stage: Stage
    index: int
    master_port: int
    threads: int = 1
    """OpenMP threads for each of its processes."""


@dataclass(frozen=True)
class Surroundings:
    """What every pod of a run shares."""

    folder: JobFolder
    secret: Callable[[str], Path]
    """The folder of a Secret."""
    environ: Mapping[str, str]
    """The user's own environment, which pods inherit."""
    gpus: tuple[str, ...] = ()
    """Names of this machine's GPUs, as CUDA_VISIBLE_DEVICES takes them."""
    gpu_resource: str = "nvidia.com/gpu"
    python: str = sys.executable


@dataclass(frozen=True)
class Launch:
    """A process to start in `folder`, and what has to be there first."""

    argv: tuple[str, ...]
    env: Mapping[str, str]
    folder: Path
    termination_log: Path
    progress_dir: Path
    grace_seconds: float = _USUAL_GRACE
    directories: tuple[Path, ...] = ()
    files: Mapping[Path, str] = field(default_factory=dict)
    """What volumes of the downward API hold."""
    links: Mapping[Path, Path] = field(default_factory=dict)

    def prepare(self) -> None:
        """Makes the pod's folders, empty but for what volumes of the downward API hold."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for directory in (self.folder, *self.directories):
            directory.mkdir(parents=True, exist_ok=True)
        for file, text in self.files.items():
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        for link, target in self.links.items():
            link.parent.mkdir(parents=True, exist_ok=True)
            if not link.is_symlink():
                link.symlink_to(target)


@dataclass(frozen=True)
class _Mounts:
    """The pod's file system: mount paths and the folders behind them, below a root of its own for the rest."""

    root: Path
    folders: Mapping[PurePosixPath, Path]

    def local(self, path: str) -> Path | None:
        """Where an absolute path of the pod lies here; None when nothing is mounted at, above or below it."""
        wanted = PurePosixPath(path)
        for mount in sorted(self.folders, key=lambda mount: len(mount.parts), reverse=True):
            if wanted.is_relative_to(mount):
                return self.folders[mount] / wanted.relative_to(mount)
        if any(mount.is_relative_to(wanted) for mount in self.folders):
            return self.root / wanted.relative_to("/")
        return None

    def rewrite(self, value: str) -> str:
        local = self.local(value) if value.startswith("/") else None
        return value if local is None else str(local)

    def folder(self, path: str) -> str:
        """Where a folder of the pod lies here, mounted or not."""
        return str(self.local(path) or self.root / path.lstrip("/"))

    def links(self) -> dict[Path, Path]:
        """The mounts as links below the root, for programs that look into a folder of mounts."""
        nested = {mount for mount in self.folders if any(mount in other.parents for other in self.folders)}
        return {
            self.root / mount.relative_to("/"): folder for mount, folder in self.folders.items() if mount not in nested
        }


def launch(manifest: Mapping[str, Any], pod: Pod, around: Surroundings) -> Launch:
    """The process of one pod of this batch/v1 Job. Raises `NotLocalError` naming what cannot be had here."""
    template = manifest["spec"]["template"]
    spec = template["spec"]
    container = _container(spec)
    home = around.folder.pods_dir / pod.name
    mounts = _mounts(spec, container, pod, home, around)
    termination_log = home / "termination-log"
    own = _environment(container, template.get("metadata", {}), pod, mounts, around)
    own[Env.TERMINATION_LOG] = str(termination_log)
    env = {**around.environ, **own, **_gpu_environment(container, pod, around)}
    env["PATH"] = os.pathsep.join([str(Path(around.python).parent), around.environ.get("PATH", os.defpath)])
    folders = [*mounts.folders.values(), *(Path(own[name]) for name in sorted(_STAGE_FOLDERS) if name in own)]
    return Launch(
        argv=_command(container, env, mounts, around.python),
        env=env,
        folder=home,
        termination_log=termination_log,
        progress_dir=Path(own.get(Env.SCRATCH, str(home))),
        grace_seconds=float(spec.get("terminationGracePeriodSeconds", _USUAL_GRACE)),
        directories=tuple(folder for folder in folders if folder.is_relative_to(around.folder.root.parent)),
        files=_downward_files(spec, template.get("metadata", {}), pod, home),
        links=mounts.links(),
    )


def _container(spec: Mapping[str, Any]) -> Mapping[str, Any]:
    containers = spec["containers"]
    found: Mapping[str, Any] = next((one for one in containers if one["name"] == CONTAINER), containers[0])
    return found


def _command(container: Mapping[str, Any], env: Mapping[str, str], mounts: _Mounts, python: str) -> tuple[str, ...]:
    """The container's command and arguments; without a command, what the image's entry point would run."""
    command = list(container.get("command", [])) or [python, "-m", "finetune_trainer"]
    if command[0] in ("python", "python3"):
        command[0] = python
    words = [_expand(word, env) for word in (*command, *container.get("args", []))]
    return tuple(mounts.rewrite(word) if index else word for index, word in enumerate(words))


def _environment(
    container: Mapping[str, Any], metadata: Mapping[str, Any], pod: Pod, mounts: _Mounts, around: Surroundings
) -> dict[str, str]:
    env: dict[str, str] = {}
    for entry in container.get("env", []):
        name = entry["name"]
        if name in _USERS_OWN and name in around.environ:
            continue
        value = _expand(entry["value"], env) if "value" in entry else _value_from(entry, metadata, pod, around)
        if value is not None:
            env[name] = mounts.folder(value) if name in _STAGE_FOLDERS else mounts.rewrite(value)
    env.setdefault("OMP_NUM_THREADS", str(pod.threads))
    env[Env.NODE_RANK] = str(pod.index)
    env[Env.PROGRESS_PORT] = "0"
    if Env.MASTER_ADDR in env:
        env[Env.MASTER_ADDR] = "127.0.0.1"
        env[Env.MASTER_PORT] = str(pod.master_port)
    return env


def _value_from(entry: Mapping[str, Any], metadata: Mapping[str, Any], pod: Pod, around: Surroundings) -> str | None:
    source = entry["valueFrom"]
    if "fieldRef" in source:
        return _downward(source["fieldRef"]["fieldPath"], metadata, pod)
    if "secretKeyRef" in source:
        file = around.secret(source["secretKeyRef"]["name"]) / source["secretKeyRef"]["key"]
        return file.read_text(encoding="utf-8").strip() if file.is_file() else around.environ.get(entry["name"])
    raise NotLocalError(f"the environment variable {entry['name']} takes its value from {', '.join(source)}")


def _downward(path: str, metadata: Mapping[str, Any], pod: Pod) -> str | None:
    known = {
        "metadata.name": pod.name,
        "metadata.namespace": pod.namespace,
        "metadata.uid": pod.uid,
        "metadata.annotations['batch.kubernetes.io/job-completion-index']": str(pod.index),
        "metadata.labels['batch.kubernetes.io/job-completion-index']": str(pod.index),
        "status.podIP": "127.0.0.1",
        "status.hostIP": "127.0.0.1",
        "spec.nodeName": "localhost",
    }
    given = {
        f"metadata.{kind}['{name}']": str(value)
        for kind in ("labels", "annotations")
        for name, value in metadata.get(kind, {}).items()
    }
    return {**given, **known}.get(path)


def _downward_files(spec: Mapping[str, Any], metadata: Mapping[str, Any], pod: Pod, home: Path) -> dict[Path, str]:
    """The files of the pod's downwardAPI volumes; one whose field is not set is empty, as in a cluster."""
    files = {}
    for volume in spec.get("volumes", []):
        for item in volume.get("downwardAPI", {}).get("items", []):
            if "fieldRef" not in item:
                raise NotLocalError(f"the volume {volume['name']} shows resources, which only a cluster knows")
            file = _private_volume(home, volume) / item["path"]
            files[file] = _downward(item["fieldRef"]["fieldPath"], metadata, pod) or ""
    return files


def _expand(value: str, env: Mapping[str, str]) -> str:
    """Kubernetes' `$(NAME)`; a name that is not known stays as it is."""
    return _VARIABLE.sub(lambda match: env.get(match[1], match[0]), str(value))


def _gpu_environment(container: Mapping[str, Any], pod: Pod, around: Surroundings) -> dict[str, str]:
    """Each pod sees the GPUs it asks for and no others."""
    wanted = int(container.get("resources", {}).get("limits", {}).get(around.gpu_resource, 0))
    first = pod.index * wanted
    return {"CUDA_VISIBLE_DEVICES": ",".join(around.gpus[first : first + wanted])}


def _mounts(
    spec: Mapping[str, Any], container: Mapping[str, Any], pod: Pod, home: Path, around: Surroundings
) -> _Mounts:
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    folders = {}
    for mount in container.get("volumeMounts", []):
        folder = _volume(volumes[mount["name"]], home, around)
        below = mount.get("subPath") or _expand(mount.get("subPathExpr", ""), {"JOB_COMPLETION_INDEX": str(pod.index)})
        folders[PurePosixPath(mount["mountPath"])] = folder / below if below else folder
    return _Mounts(home / "root", folders)


def _volume(volume: Mapping[str, Any], home: Path, around: Surroundings) -> Path:
    match volume:
        case {"emptyDir": _} | {"downwardAPI": _}:
            return _private_volume(home, volume)
        case {"persistentVolumeClaim": {"claimName": name}}:
            return around.folder.claim(name)
        case {"secret": {"secretName": name}}:
            return around.secret(name)
        case {"hostPath": {"path": path}}:
            return Path(path)
    kind = next((key for key in volume if key != "name"), "nothing")
    raise NotLocalError(f"the volume {volume['name']} is a {kind}, which only a cluster can mount")


def _private_volume(home: Path, volume: Mapping[str, Any]) -> Path:
    return home / "volumes" / str(volume["name"])
