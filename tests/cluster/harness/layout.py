"""Where one copy of the cluster lives: its folder, addresses and names, all told by its index."""

import fcntl
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .errors import UnavailableError

ROOT = Path("/var/tmp/finetune-cluster")  # noqa: S108 - owned by root, and not named by chance
COPIES = 8
NODE = "node"
# A test cluster that dies with its tests keeps no secrets: its admin and its object store have these.
ADMIN_TOKEN = "finetune-test-admin"  # noqa: S105
S3_ACCESS_KEY = "finetune"
S3_SECRET_KEY = "finetune-test-secret"  # noqa: S105


@dataclass(frozen=True)
class Instance:
    """One copy of the cluster, in a network of its own: 10.(200 + index).0.0/16."""

    index: int

    @property
    def name(self) -> str:
        """Its cgroup and its end of the link on the host."""
        return f"finetune-{self.index}"

    @property
    def home(self) -> Path:
        return ROOT / str(self.index)

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    @property
    def log(self) -> Path:
        """What the guardian and the node say; outlives the instance."""
        return ROOT / f"{self.index}.log"

    @property
    def bin(self) -> Path:
        return self.home / "bin"

    @property
    def kubeconfig(self) -> Path:
        return self.home / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        return self.home / "containerd.sock"

    @property
    def volumes(self) -> Path:
        """The data of persistent volumes, a folder each."""
        return self.home / "volumes"

    @property
    def ready(self) -> Path:
        """A file that appears once the cluster can be used."""
        return self.home / "ready"

    @property
    def detached(self) -> Path:
        """A file that says that the cluster runs until `down`."""
        return self.home / "detached"

    @property
    def guardian_pid(self) -> Path:
        return self.home / "guardian.pid"

    @property
    def network(self) -> str:
        return f"10.{200 + self.index}.0.0/16"

    @property
    def pods(self) -> str:
        return f"10.{200 + self.index}.0.0/20"

    @property
    def services(self) -> str:
        return f"10.{200 + self.index}.128.0/20"

    @property
    def api_service_ip(self) -> str:
        return f"10.{200 + self.index}.128.1"

    @property
    def host_ip(self) -> str:
        """The host's end of the link."""
        return f"10.{200 + self.index}.255.1"

    @property
    def node_ip(self) -> str:
        """The node's end of the link: API server, DNS and S3 listen here, for the host and for pods."""
        return f"10.{200 + self.index}.255.2"

    @property
    def api_server(self) -> str:
        return f"https://{self.node_ip}:6443"

    @property
    def s3_endpoint(self) -> str:
        return f"http://{self.node_ip}:7070"


@dataclass(frozen=True)
class Claim:
    """An instance that is ours for as long as `lock` stays open in some process."""

    instance: Instance
    lock: int


def claim() -> Claim:
    """Take the first free instance; the lock goes with the last process that holds it open."""
    for index in range(COPIES):
        lock = _lock(index)
        if lock is not None:
            return Claim(Instance(index), lock)
    raise UnavailableError(f"all {COPIES} copies of the test cluster are running; stop one with `harness down`")


def abandoned() -> Iterator[Claim]:
    """Take every instance whose guardian ended before it could remove it, one after the other."""
    for index in range(COPIES):
        if not Instance(index).home.exists():
            continue
        lock = _lock(index)
        if lock is not None:
            yield Claim(Instance(index), lock)
            os.close(lock)


def _lock(index: int) -> int | None:
    """Open and lock the lock file of an instance; None when another process has it."""
    ROOT.mkdir(mode=0o755, parents=True, exist_ok=True)
    lock = os.open(ROOT / f"{index}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


def detached() -> list[Instance]:
    """The instances that run until they are stopped by hand."""
    found = []
    for index in range(COPIES):
        instance = Instance(index)
        try:
            pid = int(instance.guardian_pid.read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            continue
        if instance.detached.exists():
            found.append(instance)
    return found
