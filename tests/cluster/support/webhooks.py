"""Webhooks that stand in the way of new Jobs of a namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.harness.cluster import Cluster
from tests.cluster.support.jobs import Manifest

SILENT = {"url": "https://198.51.100.1/"}
"""An address that is nobody's (TEST-NET-2): what is sent to it is swallowed."""
MISSING = {"service": {"namespace": "default", "name": "not-there"}}
KIND = "ValidatingWebhookConfiguration"
ANSWER_SECONDS = 10


@contextmanager
def in_the_way(cluster: Cluster, namespace: str, client: Manifest) -> Iterator[None]:
    """No Job is made in the namespace unless this answers, which it does not."""
    name = f"{namespace}.example.org"
    webhook = {
        "name": name,
        "clientConfig": client,
        "rules": [{"apiGroups": ["batch"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["jobs"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}},
        "failurePolicy": "Fail",
        "timeoutSeconds": ANSWER_SECONDS,
        "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
    }
    version = "admissionregistration.k8s.io/v1"
    cluster.apply({"apiVersion": version, "kind": KIND, "metadata": {"name": name}, "webhooks": [webhook]})
    try:
        yield
    finally:
        cluster.kubectl("delete", KIND, name)
