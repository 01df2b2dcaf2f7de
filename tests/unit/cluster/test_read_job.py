"""What `finetune` reads from a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.cluster.api_server import ApiServer
from tests.unit.cluster.pod_json import pod
from tests.unit.runtime.objects import finetune_job, template

from finetune_operator.api.resources import ClusterFineTuneTemplate, FineTuneTemplate
from finetune_operator.cluster import config
from finetune_operator.cluster.client import Client
from finetune_operator.cluster.read_job import Reader, WriteRefusedError, reader
from finetune_operator.runtime.kinds import CLUSTER_TEMPLATES, FINETUNE_JOBS, PODS, TEMPLATES
from finetune_trainer.contract import Stage


def a_pod(name: str, owner: str, created: str) -> dict[str, Any]:
    body = pod("Running")
    body["metadata"] |= {"name": name, "creationTimestamp": created}
    body["metadata"]["ownerReferences"] = [{"kind": "Job", "name": owner, "uid": "u", "controller": True}]
    return body


async def test_a_job_is_read_from_the_readers_namespace(server: ApiServer, client: Client) -> None:
    server.answer("GET", FINETUNE_JOBS.path("team", "bot"), finetune_job())
    found = await Reader(client, "team").job("bot")
    assert found is not None
    assert found.metadata.name == "bot"
    assert await Reader(client, "team").job("other") is None


async def test_templates_are_the_clusters_and_then_the_namespaces_own(server: ApiServer, client: Client) -> None:
    def listed(kind: str, name: str) -> dict[str, Any]:
        item = template(kind, name)
        return {"items": [{key: value for key, value in item.items() if key not in {"kind", "apiVersion"}}]}

    server.answer("GET", CLUSTER_TEMPLATES.path(None), listed("ClusterFineTuneTemplate", "shared"))
    server.answer("GET", TEMPLATES.path("team"), listed("FineTuneTemplate", "own"))
    found = await Reader(client, "team").templates()
    assert [(type(one), one.metadata.name) for one in found] == [
        (ClusterFineTuneTemplate, "shared"),
        (FineTuneTemplate, "own"),
    ]


async def test_pods_are_those_of_the_jobs_own_stages_oldest_first(server: ApiServer, client: Client) -> None:
    orphan = a_pod("d", "bot-train", "2026-01-01T00:00:00Z")
    orphan["metadata"].pop("ownerReferences")
    items = [
        a_pod("b", "bot-train", "2026-01-01T00:00:02Z"),
        a_pod("c", "somebodys-train", "2026-01-01T00:00:00Z"),
        orphan,
        a_pod("a", "bot-prepare", "2026-01-01T00:00:01Z"),
    ]
    server.answer("GET", PODS.path("team"), {"items": items})
    found = await Reader(client, "team").pods("bot")
    assert [(one.stage, one.state.name) for one in found] == [(Stage.PREPARE, "a"), (Stage.TRAIN, "b")]
    assert server.asked[-1].query == {"labelSelector": "finetune-operator.io/job=bot"}


@pytest.fixture
def kubeconfig(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    contexts = [
        {"name": "plain", "context": {"cluster": "c", "user": "u"}},
        {"name": "named", "context": {"cluster": "c", "user": "u", "namespace": "team"}},
    ]
    body = {
        "current-context": "named",
        "clusters": [{"name": "c", "cluster": {"server": server.url}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": contexts,
    }
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **body}))
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    monkeypatch.setattr(config, "SERVICE_ACCOUNT", tmp_path)
    return path


@pytest.mark.usefixtures("kubeconfig")
@pytest.mark.parametrize(
    ("context", "namespace", "read"),
    [
        (None, None, "team"),
        ("named", None, "team"),
        ("plain", None, "default"),
        ("plain", "other", "other"),
        (None, "other", "other"),
    ],
)
async def test_the_namespace_is_the_one_that_is_named_or_the_contexts(
    server: ApiServer, context: str | None, namespace: str | None, read: str
) -> None:
    async with reader(context, namespace) as found:
        assert found.namespace == read
        await found.job("bot")
    assert server.paths("GET") == [FINETUNE_JOBS.path(read, "bot")]


@pytest.mark.usefixtures("kubeconfig")
async def test_a_reader_never_writes(server: ApiServer) -> None:
    async with reader(None, None) as found:
        with pytest.raises(WriteRefusedError, match="this command only reads"):
            await found.client.create("/x", {})
    assert server.asked == []
