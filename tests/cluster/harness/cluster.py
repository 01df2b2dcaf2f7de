"""The cluster as a test sees it, and how it starts and stops."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from . import build, guardian, images, layout, packages, s3
from .errors import ClusterFailedError, UnavailableError
from .layout import NODE, Instance
from .progress import run, step

START_SECONDS = 180.0
STOP_SECONDS = 30.0
IMPORT_ROOT = Path(__file__).resolve().parents[len(__package__.split("."))]
REQUESTS = re.compile(r"^apiserver_request_total\{(?P<labels>.*)\} (?P<count>\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


class Request(NamedTuple):
    """A kind of request to the API server, as its metrics tell them apart."""

    verb: str
    group: str
    resource: str
    subresource: str
    code: str


@dataclass(frozen=True)
class Cluster:
    """A cluster that tests use through kubectl; `instance` is None for one that was there already."""

    kubeconfig: Path
    kubectl_program: Path
    s3: s3.S3 | None
    instance: Instance | None

    def kubectl(self, *arguments: str, input: str | None = None) -> str:  # noqa: A002 - subprocess calls it so
        """Run kubectl as the cluster's admin and return what it prints; raises CommandFailedError."""
        return run([self.kubectl_program, "--kubeconfig", self.kubeconfig, *arguments], text=input)

    def apply(self, manifest: str | Mapping[str, Any], namespace: str | None = None) -> str:
        """Apply YAML text or one manifest, server-side."""
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        where = ["--namespace", namespace] if namespace else []
        arguments = ["apply", "--server-side", "--force-conflicts", "--field-manager=tests", *where, "-f", "-"]
        return self.kubectl(*arguments, input=text)

    def get(self, kind: str, name: str | None = None, namespace: str | None = None, selector: str = "") -> Any:
        """The object, or with no name the list's items, as parsed JSON."""
        arguments = ["get", kind, *([name] if name else []), "--output=json"]
        arguments += ["--namespace", namespace] if namespace else []
        arguments += ["--selector", selector] if selector else []
        document = json.loads(self.kubectl(*arguments))
        return document if name else document["items"]

    def apiserver_request_counts(self) -> Counter[Request]:
        """How many requests of each kind the API server has answered since it started."""
        counts: Counter[Request] = Counter()
        for match in REQUESTS.finditer(self.kubectl("get", "--raw", "/metrics")):
            labels = dict(LABEL.findall(match["labels"]))
            counts[Request(*(labels.get(field, "") for field in Request._fields))] += int(float(match["count"]))
        return counts

    def build_image(
        self, containerfile: Path, context: Path, tag: str, build_args: Mapping[str, str] | None = None
    ) -> None:
        """Build an image with buildah and bring it into the cluster under `tag`."""
        if self.instance is None:
            raise UnavailableError("images cannot be brought into a cluster that the harness did not start")
        images.build_image(self.instance, containerfile, context, tag, build_args)

    def advertise(self, resource: str, count: int) -> None:
        """Let the node offer an extended resource such as nvidia.com/gpu, which is only counted."""
        path = f"/status/capacity/{resource.replace('/', '~1')}"
        patch = json.dumps([{"op": "add", "path": path, "value": str(count)}])
        self.kubectl("patch", "node", NODE, "--subresource=status", "--type=json", "--patch", patch)


def prepare() -> None:
    """Install packages and build programs and images, unless they are there."""
    packages.install()
    build.programs()
    images.built_in()


def start(*, detached: bool = False) -> Cluster:
    """Start a cluster that ends with this process; `detached`, one that runs until `stop`.

    Raises UnavailableError when this machine cannot run one, ClusterFailedError when it did not start.
    """
    prepare()
    guardian.sweep_abandoned()
    claim = layout.claim()
    instance = claim.instance
    instance.ready.unlink(missing_ok=True)
    with step(f"starting cluster {instance.index}"):
        process = _start_guardian(claim, detached=detached)
        deadline = time.monotonic() + START_SECONDS
        while not instance.ready.exists():
            if process.poll() is not None or time.monotonic() > deadline:
                process.terminate()
                process.wait()
                raise ClusterFailedError(f"the cluster did not start:\n{instance.log.read_text()[-4000:]}")
            time.sleep(0.05)
    return of(instance)


def of(instance: Instance) -> Cluster:
    """A running instance."""
    return Cluster(instance.kubeconfig, instance.bin / "kubectl", s3.of(instance), instance)


def existing(kubeconfig: Path) -> Cluster:
    """A cluster that was there already, with the object store that FINETUNE_S3_* tell, if any."""
    endpoint = os.environ.get("FINETUNE_S3_ENDPOINT")
    keys = (os.environ.get("FINETUNE_S3_ACCESS_KEY", ""), os.environ.get("FINETUNE_S3_SECRET_KEY", ""))
    kubectl = shutil.which("kubectl") or build.programs().links["kubectl"]
    return Cluster(kubeconfig, Path(kubectl), s3.S3(endpoint, *keys) if endpoint else None, None)


def stop(instance: Instance) -> None:
    """End a running instance and wait until nothing of it is left."""
    try:
        pid = int(instance.guardian_pid.read_text())
        os.kill(pid, signal.SIGTERM)
    except (OSError, ValueError):
        return
    deadline = time.monotonic() + STOP_SECONDS
    while instance.home.exists():
        if time.monotonic() > deadline:
            raise ClusterFailedError(f"cluster {instance.index} did not stop; its guardian is process {pid}")
        time.sleep(0.05)


def _start_guardian(claim: layout.Claim, *, detached: bool) -> subprocess.Popen[bytes]:
    """Start the guardian, which takes over the lock; it ends when this process does, unless detached."""
    lifeline, _held_until_we_end = (None, None) if detached else os.pipe()
    files = [claim.lock, *([lifeline] if lifeline is not None else [])]
    arguments = [str(claim.instance.index), str(claim.lock), "-" if lifeline is None else str(lifeline)]
    search = os.pathsep.join(filter(None, (os.environ.get("PATH"), "/usr/sbin:/usr/bin:/sbin:/bin")))
    with claim.instance.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.guardian", *arguments],
            env=dict(os.environ) | {"PYTHONPATH": str(IMPORT_ROOT), "PATH": search},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=files,
            start_new_session=True,
        )
    for file in files:
        os.close(file)
    return process
