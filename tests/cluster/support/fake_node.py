"""A node that is an object only: the test plays its kubelet, so that it can run any pod, and die."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.errors import CommandFailedError
from tests.cluster.support.jobs import Manifest

OUT_OF_SERVICE = "node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
TAINT = "finetune-operator.io/played"
TOLERATION = {"key": TAINT, "operator": "Exists"}
"""What a podTemplate needs for its pods to be scheduled to such a node."""
CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "110"}
HEARTBEAT_SECONDS = 10.0
"""A node that is silent for some 40 s is taken for lost, and no pod is scheduled to it any more."""


@dataclass(frozen=True)
class FakeNode:
    """Takes no pod that does not tolerate TAINT."""

    cluster: Cluster
    name: str
    _down: threading.Event = field(default_factory=threading.Event)

    def beat(self) -> None:
        """Say that it is ready, again and again, until it is shut down or removed."""
        while not self._down.wait(HEARTBEAT_SECONDS):
            with suppress(CommandFailedError):  # it was removed just now
                self.condition("True")

    def condition(self, ready: str) -> None:
        """Say that it is ready (True) or not (False)."""
        moment = now()
        told = {"type": "Ready", "status": ready, "reason": "Played", "message": ""}
        times = {"lastHeartbeatTime": moment, "lastTransitionTime": moment}
        self._patch_status(
            "node", self.name, {"capacity": CAPACITY, "allocatable": CAPACITY, "conditions": [told | times]}
        )

    def shut_down(self) -> None:
        """What an administrator says of a node that will not come back soon."""
        self._down.set()
        self.condition("False")
        self.cluster.kubectl("taint", "node", self.name, OUT_OF_SERVICE)

    def remove(self) -> None:
        self._down.set()
        self.cluster.kubectl("delete", "node", self.name, "--ignore-not-found")

    def run(self, pod: Manifest) -> None:
        """Let the pod's container run."""
        self._play(pod, "Running", {"running": {"startedAt": now()}})

    def finish(self, pod: Manifest, result: Manifest) -> None:
        """Let the pod's container end well, with this Result."""
        ended = {"exitCode": 0, "reason": "Completed", "message": json.dumps(result), "finishedAt": now()}
        self._play(pod, "Succeeded", {"terminated": ended | {"startedAt": now()}})

    def _play(self, pod: Manifest, phase: str, state: Manifest) -> None:
        image = {"image": "played", "imageID": "played", "restartCount": 0, "ready": phase == "Running"}
        status = {"phase": phase, "containerStatuses": [{"name": "trainer", "state": state, **image}]}
        self._patch_status("pod", pod["metadata"]["name"], status, pod["metadata"]["namespace"])

    def _patch_status(self, kind: str, name: str, status: Manifest, namespace: str | None = None) -> None:
        where = ["--namespace", namespace] if namespace else []
        patch = ["--subresource=status", "--type=merge", "--patch", json.dumps({"status": status})]
        self.cluster.kubectl("patch", kind, name, *where, *patch)


@contextmanager
def fake_node(cluster: Cluster, name: str) -> Iterator[FakeNode]:
    """A node of this name, for a while."""
    node = FakeNode(cluster, name)
    labels = {"kubernetes.io/hostname": name}
    taint = {"key": TAINT, "effect": "NoSchedule"}
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name, "labels": labels},
            "spec": {"taints": [taint]},
        }
    )
    heartbeat = threading.Thread(target=node.beat, name=f"heartbeat of {name}")
    try:
        node.condition("True")
        heartbeat.start()
        yield node
    finally:
        node.remove()
        if heartbeat.ident is not None:
            heartbeat.join()


def now() -> str:
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
