"""What keeps the operator from its work gets into the status, and ends neither the job nor the operator."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.errors import CommandFailedError
from tests.cluster.support.fakes import HOLD, end, fake, running
from tests.cluster.support.jobs import Jobs, Manifest, condition
from tests.cluster.support.operator import OperatorProcess
from tests.cluster.support.waiting import pause, until
from tests.cluster.support.webhooks import MISSING, in_the_way
from tests.cluster.test_admission import RIGHTS, Release, kubeconfig_of

STRANGE: dict[str, tuple[Manifest, str]] = {
    "no pod spec": ({"podTemplate": {"spec": None}}, "podTemplate"),
    "no pod template": ({"podTemplate": None}, "podTemplate"),
    "containers that are no list": ({"podTemplate": {"spec": {"containers": {}}}}, "containers"),
    "a deadline after the end of time": ({"runPolicy": {"activeDeadlineSeconds": 10**12}}, "activeDeadlineSeconds"),
}
FEW_SECONDS = 30


def stalled(jobs: Jobs, name: str, *words: str) -> Manifest:
    """The status once it is Stalled, with a message that has these words."""

    def told() -> Manifest | None:
        status = jobs.status(name)
        is_told = condition(status, "Stalled").get("status") == "True"
        return status if is_told and all(word in status["message"] for word in words) else None

    return until(told, f"{name} is stalled: {words}", seconds=FEW_SECONDS, story=lambda: jobs.story(name))


def test_a_webhook_that_fails_is_told_within_a_few_tries_and_the_job_goes_on_without_it(bare_jobs: Jobs) -> None:
    with in_the_way(bare_jobs.cluster, bare_jobs.namespace, MISSING):
        bare_jobs.apply(fake("blocked"))
        status = stalled(bare_jobs, "blocked", "webhook", "not-there")
        assert status["reason"] in {"OperatorFault", "Rejected"}
    status = bare_jobs.until_phase("blocked", "Succeeded", seconds=90)
    assert condition(status, "Stalled").get("status") != "True"


@pytest.mark.parametrize("case", STRANGE)
def test_a_strange_spec_is_refused_or_stalls_with_words_that_name_the_field(case: str, bare_jobs: Jobs) -> None:
    change, word = STRANGE[case]
    manifest = fake("strange")
    manifest["spec"] |= change
    if told := refusal(bare_jobs, manifest):
        assert word in told
    else:
        stalled(bare_jobs, "strange", word)


def refusal(jobs: Jobs, manifest: Manifest) -> str:
    """What the API server says to it; nothing when it takes it."""
    try:
        jobs.apply(manifest)
    except CommandFailedError as error:
        return str(error)
    return ""


@pytest.fixture
def with_rights(
    product: Cluster, operator: OperatorProcess, namespace: str, tmp_path: Path
) -> Iterator[OperatorProcess]:
    """The operator with the chart's rights in one namespace; the tests' own is stopped meanwhile."""
    release = Release(product, f"rights-{namespace[-5:]}", namespace)
    product.kubectl("create", "namespace", release.system)
    product.apply({"apiVersion": "v1", "kind": "List", "items": release.rendered(*RIGHTS)})
    own = {"HEALTH_PORT", "METRICS_PORT"}
    settings = {name: value for name, value in operator.settings.items() if name not in own} | {
        "NAMESPACES": namespace,
        "LEASE_NAMESPACE": release.system,
        "LEASE_NAME": f"{release.name}-finetune-operator",
        "RESYNC_SECONDS": "5",
    }
    operator.stop()
    try:
        with OperatorProcess(kubeconfig_of(release, tmp_path), tmp_path / "log", {}, **settings) as process:
            yield process
    finally:
        product.kubectl("delete", "namespace", release.system, "--wait=false")
        product.kubectl("delete", "clusterrole,clusterrolebinding", "-l", f"app.kubernetes.io/instance={release.name}")
        operator.start()


def test_a_right_that_is_taken_away_is_named_and_given_back_all_goes_on(
    with_rights: OperatorProcess, product: Cluster, namespace: str
) -> None:
    jobs = Jobs(product, namespace)
    jobs.apply(fake("trusted", {"train": HOLD}))
    (pod,) = running(jobs, "trusted", "train")
    with without_right(product, namespace, "jobs"):
        until(lambda: "jobs cannot be listed" in readiness(with_rights), "readyz names it", seconds=60)
        assert with_rights.process is not None
        process = with_rights.process
        assert process.poll() is None
        with_rights.kill()
        with_rights.launch()
        until(lambda: "the cluster is not known yet" in readiness(with_rights), "it starts", seconds=60)
        pause(10)
        assert with_rights.process is not None
        assert with_rights.process.poll() is None, with_rights.log.read_text()[-4000:]
    until(lambda: readiness(with_rights) == "ok", "it is ready", seconds=90, story=with_rights.log.read_text)
    end(jobs, pod)
    status = jobs.until_phase("trusted", "Succeeded", seconds=60)
    assert len(status["attempts"]) == 1


def readiness(operator: OperatorProcess) -> str:
    """What /readyz says; empty while it is not up."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{operator.health}/readyz", timeout=5) as answer:
            return str(answer.read().decode().strip())
    except urllib.error.HTTPError as error:
        return error.read().decode().strip()
    except OSError:
        return ""


@contextmanager
def without_right(cluster: Cluster, namespace: str, resource: str) -> Iterator[None]:
    """The operator's Role in the namespace without the rules for a resource."""
    role = next(role for role in cluster.get("role", namespace=namespace) if "finetune" in role["metadata"]["name"])
    fewer = [rule for rule in role["rules"] if resource not in rule["resources"]]
    assert len(fewer) < len(role["rules"])
    name = role["metadata"]["name"]
    set_rules(cluster, namespace, name, fewer)
    yield
    set_rules(cluster, namespace, name, role["rules"])


def set_rules(cluster: Cluster, namespace: str, role: str, rules: list[Any]) -> None:
    patch = json.dumps({"rules": rules})
    cluster.kubectl("patch", "role", role, "--namespace", namespace, "--type=merge", "--patch", patch)
