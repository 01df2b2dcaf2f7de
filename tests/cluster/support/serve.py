"""Runs the operator against the cluster of `make cluster`; pods run from this checkout's environment.

`python -m tests.cluster.support.serve` (`make cluster-operator`); KUBECONFIG names another cluster of the harness.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tests.cluster.harness import cluster as clusters
from tests.cluster.harness import layout
from tests.cluster.harness.pods import venv_pod_template

REPOSITORY = Path(__file__).resolve().parents[3]


def main() -> None:
    """Apply the CRDs and become the operator."""
    kubeconfig = Path(os.environ.get("KUBECONFIG") or _first_cluster())
    cluster = clusters.existing(kubeconfig)
    for definition in sorted((REPOSITORY / "crds").glob("*.yaml")):
        cluster.apply(definition.read_text())
    defaults = {
        "FINETUNE_OPERATOR_PLAN__POD_TEMPLATE": json.dumps(venv_pod_template(Path(sys.prefix), REPOSITORY)),
        "FINETUNE_OPERATOR_PLAN__DEFAULT_WORKSPACE_SIZE": "10Gi",
        "FINETUNE_OPERATOR_LEASE_NAMESPACE": "default",
        "FINETUNE_OPERATOR_LOG_FORMAT": "console",
    }
    command = [sys.executable, "-m", "finetune_operator", "--kubeconfig", str(kubeconfig)]
    os.execve(sys.executable, command, defaults | os.environ)  # noqa: S606 - the operator takes this process over


def _first_cluster() -> Path:
    instance = next(iter(layout.detached()), None)
    if instance is None:
        sys.exit("no cluster is running: `make cluster` starts one, or set KUBECONFIG")
    return instance.kubeconfig


if __name__ == "__main__":
    main()
