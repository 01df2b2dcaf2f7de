"""The real helm, run against the test cluster."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.cluster.harness.build import bin_folder
from tests.cluster.harness.cluster import Cluster


def helm(cluster: Cluster, *arguments: str, values: dict[str, Any] | None = None) -> str:
    """Run helm against the cluster, with these values if any, and return what it prints."""
    command = [str(bin_folder() / "helm"), "--kubeconfig", str(cluster.kubeconfig), *arguments]
    command += ["--values", "-"] if values is not None else []
    text = json.dumps(values) if values is not None else None
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
