"""What happened in a namespace, as files for the person who reads a failed test."""

from pathlib import Path

from .cluster import Cluster
from .errors import CommandFailedError

KINDS = ("pods", "jobs", "events", "persistentvolumeclaims", "services", "configmaps")
OURS = "finetune-operator.io"


def write(cluster: Cluster, namespace: str, folder: Path) -> None:
    """Write the namespace's objects, events, pod descriptions and logs into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    here = ("--namespace", namespace)
    ours = cluster.kubectl("api-resources", f"--api-group={OURS}", "--namespaced", "--output=name").split()
    for kind in (*KINDS, *ours):
        _keep(cluster, folder / f"{kind}.yaml", "get", kind, *here, "--output=yaml")
    _keep(cluster, folder / "events.txt", "events", *here)
    _keep(cluster, folder / "pods.txt", "describe", "pods", *here)
    for pod in cluster.get("pods", namespace=namespace):
        name = pod["metadata"]["name"]
        for container in pod["spec"]["containers"]:
            target = folder / f"{name}.{container['name']}.log"
            _keep(cluster, target, "logs", name, "--container", container["name"], *here)


def _keep(cluster: Cluster, target: Path, *arguments: str) -> None:
    """Write what a command prints, or why it failed."""
    try:
        target.write_text(cluster.kubectl(*arguments))
    except CommandFailedError as error:
        target.write_text(f"{error}\n")
