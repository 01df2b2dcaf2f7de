"""The chart, installed with the real helm: the operator's own image runs in the cluster and trains a job."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.harness.build import bin_folder
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.pods import venv_pod_template
from tests.cluster.support import python_image
from tests.cluster.support.helm import helm
from tests.cluster.support.jobs import Jobs
from tests.cluster.support.operator import OperatorProcess
from tests.cluster.support.store import Store
from tests.cluster.test_jobs import published_artifact_is_whole, stored

from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.settings import PREFIX, variables

REPOSITORY = Path(__file__).resolve().parents[2]
CHART = REPOSITORY / "charts" / "finetune-operator"
IMAGE = "localhost/finetune-operator"


@pytest.fixture
def release(product: Cluster, operator: OperatorProcess, namespace: str, tmp_path: Path) -> Iterator[str]:
    """The chart, watching only this test's namespace; its notes. The other tests' operator is stopped meanwhile."""
    if product.instance is None:
        pytest.skip("images cannot be brought into a cluster that the harness did not start")
    base = python_image.build(product, tmp_path / "python")
    product.build_image(REPOSITORY / "operator" / "Dockerfile", REPOSITORY, f"{IMAGE}:test", {"BASE_IMAGE": base})
    product.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/warn=restricted")
    values: dict[str, Any] = {
        "image": {"repository": IMAGE, "tag": "test"},
        "namespaces": [namespace],
        "crds": {"install": False},
        "trainer": {"podTemplate": venv_pod_template(Path(sys.prefix), REPOSITORY)},
        "extraEnv": [{"name": "FINETUNE_OPERATOR_SCRAPE_SECONDS", "value": "1"}],
    }
    system = system_of(namespace)
    install = ("install", "ftop", str(CHART), "-n", system, "--create-namespace", "--wait", "--timeout", "120s")
    operator.stop()
    try:
        yield helm(product, *install, values=values)
        helm(product, "uninstall", "ftop", "-n", system, "--wait")
    finally:
        product.kubectl("delete", "namespace", system, "--ignore-not-found", "--wait=false")
        operator.start()


def system_of(namespace: str) -> str:
    """The operator's own namespace, in which no job may be."""
    return f"{namespace}-operator"


def test_the_operator_from_the_chart_trains_a_job(product: Cluster, namespace: str, store: Store, release: str) -> None:
    assert "kubectl get ftj -w" in release
    product.apply(store.secret(), namespace)
    jobs = Jobs(product, namespace)
    jobs.apply(stored(store, "charted"))
    status = jobs.until_phase("charted", "Succeeded", seconds=400)
    published_artifact_is_whole(status, store)
    system = system_of(namespace)
    (operator,) = product.get("pods", namespace=system, selector="app.kubernetes.io/name=finetune-operator")
    assert operator["status"]["containerStatuses"][0]["restartCount"] == 0
    log = product.kubectl("logs", operator["metadata"]["name"], "-n", system)
    assert "orbidden" not in log, log


def test_the_chart_brings_the_definitions_and_refuses_unknown_values(cluster: Cluster) -> None:
    rendered = helm(cluster, "template", "ftop", str(CHART))
    assert rendered.count("kind: CustomResourceDefinition") == 3
    assert "helm.sh/resource-policy: keep" in rendered
    assert "readOnlyRootFilesystem: true" in rendered
    helm(cluster, "lint", str(CHART))
    command = [str(bin_folder() / "helm"), "template", "ftop", str(CHART), "--set", "replica=2"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)
    assert refused.returncode != 0
    assert "replica" in refused.stderr


def test_every_setting_that_the_chart_makes_is_one_that_the_operator_reads(cluster: Cluster) -> None:
    pod_template = {"spec": {"nodeSelector": {"gpu": "h200"}}}
    trainer = {
        "podTemplate": pod_template,
        "enforcedPodTemplate": pod_template,
        "defaultStorageClass": "fast",
        "propagatedPrefixes": ["example.org/"],
        "requests": {"cpuPerGpu": 8, "memoryMibPerProcess": 0},
    }
    arguments = ("template", "ftop", str(CHART), "--show-only", "templates/deployment.yaml")
    deployment = yaml.safe_load(helm(cluster, *arguments, values={"trainer": trainer}))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    made = {entry["name"]: entry.get("value") for entry in container["env"]}
    assert set(made) <= {name for name, _, _ in variables()}
    plan = {name.removeprefix(f"{PREFIX}PLAN__").lower(): value for name, value in made.items() if "PLAN__" in name}
    parsed = PlanSettings.model_validate(
        plan
        | {name: json.loads(plan[name]) for name in ("pod_template", "enforced_pod_template", "propagated_prefixes")}
    )
    assert parsed.enforced_pod_template == pod_template
    assert parsed.propagated_prefixes == ("example.org/",)
    assert (parsed.cpu_per_gpu, parsed.memory_per_gpu_gib, parsed.memory_mib_per_process) == (8, 16, 0)
