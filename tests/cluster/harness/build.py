"""The programs of the cluster, built from Go modules once and kept by a digest of what they are built from."""

import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .errors import UnavailableError
from .progress import run, step

KUBERNETES = "v1.36.3"
SOURCES = Path(__file__).resolve().parent.parent
KUEUE = "sigs.k8s.io/kueue"
KUEUE_FLAGS = f"-X {KUEUE}/pkg/version.GitVersion=v0.19.2"
# An aggregated API that nobody serves would hold up the deletion of namespaces.
NOT_AGGREGATED = shutil.ignore_patterns("visibility*")
GO = (1, 26)  # 1.27 breaks /openapi/v2 of Kubernetes 1.36
VERSION_FLAGS = {
    "gitVersion": KUBERNETES,
    "gitMajor": "1",
    "gitMinor": "36",
    "gitTreeState": "clean",
}


@dataclass(frozen=True)
class Program:
    """A program to build: `build` writes it to the path it is given."""

    name: str
    digest: str
    build: Callable[[Path], None]

    @property
    def path(self) -> Path:
        return cache() / "builds" / f"{self.name}-{self.digest[:16]}"


@dataclass(frozen=True)
class Programs:
    """The built programs; `cluster` is kubectl, kubelet, etcd and the others by its first argument."""

    cluster: Path
    coredns: Path
    helm: Path
    versitygw: Path

    @property
    def links(self) -> dict[str, Path]:
        """The programs by the names that they are called by."""
        return {
            "cluster": self.cluster,
            "kubectl": self.cluster,
            "coredns": self.coredns,
            "helm": self.helm,
            "versitygw": self.versitygw,
        }


def cache() -> Path:
    """Where built programs and images are kept between runs: $FINETUNE_CACHE."""
    return Path(os.environ.get("FINETUNE_CACHE") or "~/.cache/finetune-operator").expanduser()


def programs() -> Programs:
    """Build what is missing from the cache; minutes when it is empty, nothing when it is full."""
    flags = " ".join(f"-X k8s.io/component-base/version.{name}={value}" for name, value in VERSION_FLAGS.items())
    wanted = (
        _module("cluster", SOURCES / "kubernetes", flags),
        _module("coredns", SOURCES / "coredns", ""),
        _installed("helm", "helm.sh/helm/v4/cmd/helm@v4.3.1"),
        _installed("versitygw", "github.com/versity/versitygw/cmd/versitygw@v1.8.0"),
    )
    built = Programs(**{program.name: _built(program) for program in wanted})
    link_all(bin_folder(), built.links)
    return built


def kueue() -> Path:
    """A folder with Kueue's manager and its chart; about eight minutes on two cores when the cache has none."""
    return _built(_with_chart(_module("kueue", SOURCES / "kueue", KUEUE_FLAGS, f"{KUEUE}/cmd/kueue")))


def bin_folder() -> Path:
    """A folder for PATH: kubectl, helm and the others by their names."""
    return cache() / "bin"


def link_all(folder: Path, links: dict[str, Path]) -> None:
    """Make symbolic links by name in a folder, each replaced in one step."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, target in links.items():
        fresh = folder / f".{name}.{os.getpid()}"
        fresh.symlink_to(target)
        fresh.replace(folder / name)


def _built(program: Program) -> Path:
    if program.path.exists():
        return program.path
    program.path.parent.mkdir(parents=True, exist_ok=True)
    with (cache() / f"{program.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.path.exists():
            _require_go()
            unfinished = program.path.with_suffix(".unfinished")
            with step(f"building {program.name}"):
                program.build(unfinished)
            unfinished.replace(program.path)
    return program.path


def _module(name: str, folder: Path, flags: str, package: str = ".") -> Program:
    sources = sorted([folder / "go.mod", folder / "go.sum", *folder.glob("*.go")])
    digest = hashlib.sha256(flags.encode())
    for source in sources:
        digest.update(source.name.encode() + b"\0" + source.read_bytes())

    def build(target: Path) -> None:
        ldflags = f"-s -w {flags}"
        argv: list[str | Path] = [
            "go",
            "build",
            "-mod=readonly",
            "-trimpath",
            "-buildvcs=false",
            "-ldflags",
            ldflags,
            "-o",
            target,
            package,
        ]
        run(argv, cwd=folder, env=_go_environment(), what=f"building {name}")

    return Program(name, digest.hexdigest(), build)


def _with_chart(manager: Program) -> Program:
    """A folder of Kueue's manager and the chart that comes with its module."""

    def build(target: Path) -> None:
        target.mkdir(exist_ok=True)
        manager.build(target / "manager")
        where = ["go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", KUEUE]
        module = Path(run(where, cwd=SOURCES / "kueue", env=_go_environment()).strip())
        shutil.copytree(module / "charts" / "kueue", target / "chart", dirs_exist_ok=True, ignore=NOT_AGGREGATED)

    return Program(manager.name, manager.digest, build)


def _installed(name: str, package: str) -> Program:
    def build(target: Path) -> None:
        folder = target.with_suffix(".bin")
        argv = ["go", "install", "-trimpath", "-ldflags", "-s -w", package]
        run(argv, env=_go_environment() | {"GOBIN": str(folder)}, what=f"building {name}")
        (folder / name).replace(target)
        shutil.rmtree(folder)

    return Program(name, hashlib.sha256(package.encode()).hexdigest(), build)


def _go_environment() -> dict[str, str]:
    return dict(os.environ) | {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOWORK": "off"}


def _require_go() -> None:
    wanted = ".".join(map(str, GO))
    if shutil.which("go") is None:
        raise UnavailableError(f"Go is not installed; the test cluster is built with Go {wanted}")
    version = run(["go", "env", "GOVERSION"], env=_go_environment()).strip()
    number = re.match(r"go(\d+)\.(\d+)", version)
    if number is None or (int(number[1]), int(number[2])) != GO:
        raise UnavailableError(f"the test cluster is built with Go {wanted}, and this is {version}")
