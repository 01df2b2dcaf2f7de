"""Kubeflow Trainer and the JobSet that its go.mod requires: built from Go modules once, and kept in the cache.

The sources are the modules' own. One build of Trainer differs in two lines: its client may send as many requests as
JobSet's (500 a second), where Trainer itself leaves controller-runtime's 20 and has no flag for it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.harness.build import cache
from tests.cluster.harness.progress import run, step

TRAINER = "github.com/kubeflow/trainer/v2"
TRAINER_VERSION = "v2.0.0"
JOBSET = "sigs.k8s.io/jobset"
JOBSET_REQUEST_RATE = 500
_CLIENT = "ctrl.NewManager(ctrl.GetConfigOrDie(),"


@dataclass(frozen=True)
class Module:
    """A Go module in the module cache."""

    path: str
    version: str
    folder: Path
    go_mod: Path


@dataclass(frozen=True)
class Peers:
    """The built programs, and the modules with their manifests."""

    trainer_module: Module
    jobset_module: Module
    trainer: Path
    trainer_unthrottled: Path
    """With JobSet's request rate."""
    jobset: Path


def peers() -> Peers:
    """Build what is missing; about ten minutes on two cores when nothing is there."""
    trainer = _download(TRAINER, TRAINER_VERSION)
    jobset = _download(JOBSET, _required(trainer.go_mod.read_text(), JOBSET))
    command = "./cmd/trainer-controller-manager"
    return Peers(
        trainer_module=trainer,
        jobset_module=jobset,
        trainer=_built("trainer", trainer, command),
        trainer_unthrottled=_built("trainer-unthrottled", trainer, command, main=f"{command}/main.go"),
        jobset=_built("jobset", jobset, "."),
    )


def _required(go_mod: str, module: str) -> str:
    """The version of a module that a go.mod requires."""
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} (\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ValueError(f"go.mod does not require {module}")
    return found[1]


def _download(path: str, version: str) -> Module:
    told = json.loads(run(["go", "mod", "download", "-json", f"{path}@{version}"], env=_environment()))
    return Module(path, version, Path(told["Dir"]), Path(told["GoMod"]))


def _built(name: str, module: Module, package: str, main: str | None = None) -> Path:
    """The program; `main` is the file in which the request rate is raised."""
    program = cache() / "builds" / f"peer-{name}-{module.version}"
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    with step(f"building {name} {module.version}"), tempfile.TemporaryDirectory() as folder:
        sources = Path(folder) / "sources"
        shutil.copytree(module.folder, sources)
        if main is not None:
            _raise_rate(sources / main)
        unfinished = program.with_suffix(f".{os.getpid()}")
        argv: list[str | Path] = [
            "go",
            "build",
            "-mod=mod",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            "-s -w",
            "-o",
            unfinished,
        ]
        run([*argv, package], cwd=sources, env=_environment(), what=f"building {name}")
        unfinished.replace(program)
    return program


def _raise_rate(main: Path) -> None:
    """Let the client of a controller-runtime manager send as much as JobSet's."""
    text = main.read_text()
    if _CLIENT not in text:
        raise ValueError(f"{main.name} makes its client in another way than {TRAINER_VERSION} did")
    main.parent.chmod(main.parent.stat().st_mode | stat.S_IWUSR)
    main.chmod(main.stat().st_mode | stat.S_IWUSR)
    main.write_text(text.replace(_CLIENT, "ctrl.NewManager(atRate(ctrl.GetConfigOrDie()),"))
    rate = f"cfg.QPS, cfg.Burst = {JOBSET_REQUEST_RATE}, {JOBSET_REQUEST_RATE}"
    (main.parent / "rate.go").write_text(
        'package main\n\nimport "k8s.io/client-go/rest"\n\n'
        f"func atRate(cfg *rest.Config) *rest.Config {{\n\t{rate}\n\treturn cfg\n}}\n"
    )


def _environment() -> dict[str, str]:
    return dict(os.environ) | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}
