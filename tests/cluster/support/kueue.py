"""The real Kueue, in the test cluster as its chart installs it, and the queues that tests need."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, Self

from tests.cluster.harness import build
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.errors import CommandFailedError
from tests.cluster.support.helm import helm
from tests.cluster.support.waiting import until

IMAGE = "localhost/kueue"
NAMESPACE = "kueue-system"
MANAGER = "deployment/kueue-controller-manager"
CERTIFICATE = "kueue-webhook-server-cert"
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
PRIORITY_LABEL = "kueue.x-k8s.io/priority-class"
MANAGED = {"finetune-operator.io/test-of": "kueue"}
"""What labels a namespace whose Jobs Kueue may look at; those of the other tests are none of its business."""
FLAVOR = "default-flavor"
CONTAINERFILE = """\
FROM scratch
COPY manager /manager
USER 65532:65532
ENTRYPOINT ["/manager"]
"""

Manifest = dict[str, Any]


class Kueue:
    """Kueue on a cluster; `start` again with other options replaces the manager that runs."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self._folder = folder
        self._options: dict[str, Any] | None = None

    @classmethod
    def install(cls, cluster: Cluster, context: Path) -> Kueue:
        """Bring the image into the cluster; `context` is an empty folder. Nothing runs before `start`."""
        folder = build.kueue()
        containerfile = context / "Containerfile"
        containerfile.write_text(CONTAINERFILE)
        cluster.build_image(containerfile, folder, f"{IMAGE}:test")
        return cls(cluster, folder)

    def start(self, **options: Any) -> None:
        """Run the manager with these options of Kueue's Configuration, such as manageJobsWithoutQueueName."""
        if options == self._options:
            return
        place = ("--namespace", NAMESPACE, "--create-namespace")
        helm(self.cluster, "upgrade", "--install", "kueue", str(self._folder / "chart"), *place, values=values(options))
        if self._options is None:
            self._mount_certificate()
        self.cluster.kubectl("rollout", "status", MANAGER, "--namespace", NAMESPACE, "--timeout=90s")
        until(self._answers, "Kueue's webhooks answer", seconds=30, story=self.log)
        self._options = options

    def log(self) -> str:
        return self.cluster.kubectl("logs", MANAGER, "--namespace", NAMESPACE, "--tail=200")

    def queue(self, namespace: str, name: str = "queue", **quota: str) -> None:
        """A LocalQueue and a ClusterQueue of its own, NAMESPACE-NAME, with this quota by resource."""
        self.cluster.kubectl("label", "namespace", namespace, *(f"{key}={value}" for key, value in MANAGED.items()))
        for manifest in (flavor(), cluster_queue(f"{namespace}-{name}", quota), local_queue(namespace, name)):
            self.cluster.apply(manifest)

    def used(self, namespace: str, name: str = "queue") -> dict[str, str]:
        """The quota in use by resource, as the ClusterQueue's status tells; what is unused is not in it."""
        status = self.cluster.get("clusterqueue", f"{namespace}-{name}").get("status", {})
        resources = [resource for flavor in status.get("flavorsUsage", []) for resource in flavor["resources"]]
        return {resource["name"]: resource["total"] for resource in resources if resource["total"] != "0"}

    def workload(self, namespace: str, job: str) -> Manifest | None:
        """The Workload of a Job; None before Kueue has made it."""
        found: list[Manifest] = self.cluster.get("workload", namespace=namespace)
        uid = self.cluster.get("job", job, namespace)["metadata"]["uid"]
        return next((w for w in found if w["metadata"]["ownerReferences"][0]["uid"] == uid), None)

    def admit(self, namespace: str, name: str, policy: str) -> None:
        """Set the queue's stopPolicy: Hold keeps it from admitting anything, None lets it go on."""
        patch = json.dumps({"spec": {"stopPolicy": policy}})
        self.cluster.kubectl("patch", "clusterqueue", f"{namespace}-{name}", "--type=merge", "--patch", patch)

    def _mount_certificate(self) -> None:
        """Let the manager's first pod go once it has made the certificate: a new one mounts it at once."""
        until(
            lambda: self.cluster.get("secret", CERTIFICATE, NAMESPACE).get("data"),
            "Kueue has made its certificate",
            seconds=60,
            story=self.log,
        )
        self.cluster.kubectl("delete", "pods", "--all", "--namespace", NAMESPACE, "--grace-period=1")

    def _answers(self) -> bool:
        try:
            self.cluster.kubectl("create", "--dry-run=server", "-f", "-", input=json.dumps(flavor("probe")))
        except CommandFailedError:
            return False
        return True


def values(options: dict[str, Any]) -> dict[str, Any]:
    """The chart's values: one small manager that looks at Jobs only, in the namespaces of its tests."""
    configuration = {
        "apiVersion": "config.kueue.x-k8s.io/v1beta2",
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": ":8081"},
        "metrics": {"bindAddress": ":8443"},
        "webhook": {"port": 9443},
        "leaderElection": {"leaderElect": False},
        "integrations": {"frameworks": ["batch/job"]},
        "managedJobsNamespaceSelector": {"matchLabels": MANAGED},
        **options,
    }
    manager = {
        "image": {"repository": IMAGE, "tag": "test", "pullPolicy": "IfNotPresent"},
        "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "2", "memory": "512Mi"}},
    }
    return {
        "controllerManager": {
            "manager": manager,
            "strategy": {"type": "Recreate"},
            "readinessProbe": {"initialDelaySeconds": 0, "periodSeconds": 1},
            "featureGates": [{"name": "VisibilityOnDemand", "enabled": False}],
        },
        "enableVisibilityAuthReaderRoleBinding": False,
        "managerConfig": {"controllerManagerConfigYaml": json.dumps(configuration)},
    }


def flavor(name: str = FLAVOR) -> Manifest:
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ResourceFlavor", "metadata": {"name": name}}


def cluster_queue(name: str, quota: dict[str, str]) -> Manifest:
    """A queue that every namespace may use, and whose workloads give way to those of a higher priority."""
    resources = [{"name": resource, "nominalQuota": amount} for resource, amount in quota.items()]
    group = {"coveredResources": list(quota), "flavors": [{"name": FLAVOR, "resources": resources}]}
    spec = {
        "namespaceSelector": {},
        "resourceGroups": [group],
        "preemption": {"withinClusterQueue": "LowerPriority"},
    }
    return {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "ClusterQueue", "metadata": {"name": name}, "spec": spec}


def local_queue(namespace: str, name: str) -> Manifest:
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "LocalQueue",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"clusterQueue": f"{namespace}-{name}"},
    }


def priority(name: str, value: int) -> Manifest:
    return {
        "apiVersion": "kueue.x-k8s.io/v1beta2",
        "kind": "WorkloadPriorityClass",
        "metadata": {"name": name},
        "value": value,
    }


class SuspendWatch:
    """Records what `spec.suspend` of each Job of a namespace has been, while it is entered."""

    def __init__(self, cluster: Cluster, namespace: str, log: Path) -> None:
        form = '{.object.metadata.name} {.object.metadata.uid} {.object.spec.suspend}{"\\n"}'
        watch = (
            "get",
            "jobs",
            "--namespace",
            namespace,
            "--watch",
            "--output-watch-events",
            f"--output=jsonpath={form}",
        )
        self._command = [str(cluster.kubectl_program), "--kubeconfig", str(cluster.kubeconfig), *watch]
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def of(self, job: str) -> list[list[bool]]:
        """For each Job of this name that there was, in their order: the values of `suspend` one after the other."""
        seen: dict[str, list[bool]] = {}
        for line in self._log.read_text().splitlines():
            name, uid, suspend = line.split()
            values = seen.setdefault(uid, [])
            if name == job and values[-1:] != [suspend == "true"]:
                values.append(suspend == "true")
        return [values for values in seen.values() if values]
