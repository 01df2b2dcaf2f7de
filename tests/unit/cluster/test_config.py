from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.cluster import config
from finetune_operator.cluster.config import Credentials, NoClusterError, credentials, load, own_namespace


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    def cluster(number: int) -> dict[str, Any]:
        server = {"server": f"https://10.0.0.{number}:6443", "insecure-skip-tls-verify": True}
        return {"name": f"c{number}", "cluster": server}

    users: list[dict[str, Any]] = [{"name": "u1", "user": {"token": "secret-1"}}]
    users.append({"name": "u2", "user": {"username": "me", "password": "mine"}})
    contexts = [{"name": f"k{n}", "context": {"cluster": f"c{n}", "user": f"u{n}"}} for n in (1, 2)]
    body = {"current-context": "k1", "clusters": [cluster(1), cluster(2)], "users": users, "contexts": contexts}
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **body}))
    return path


@pytest.fixture
def service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a pod would have its service account; there is none yet."""
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    monkeypatch.setattr(config, "SERVICE_ACCOUNT", folder)
    return folder


async def test_a_kubeconfig_that_is_named_comes_before_the_service_account(
    kubeconfig: Path, service_account: Path
) -> None:
    (service_account / "token").write_text("t")
    found = await load(kubeconfig, None)
    assert found.host == "https://10.0.0.1:6443"
    assert found.client_session_kwargs == {"trust_env": False}
    assert found.retries is None


async def test_another_context_is_another_cluster_with_its_own_credentials(kubeconfig: Path) -> None:
    assert await credentials(await load(kubeconfig, None)) == Credentials(
        server="https://10.0.0.1:6443",
        ca_path=None,
        insecure=True,
        certificate_path=None,
        private_key_path=None,
        username=None,
        password=None,
        scheme="Bearer",
        token="secret-1",  # noqa: S106 - of a test
    )
    second = await load(kubeconfig, "k2")
    assert second.host == "https://10.0.0.2:6443"
    assert (await credentials(second)).scheme == "Basic"


async def test_certificates_and_passwords_are_told_as_the_client_has_them(kubeconfig: Path) -> None:
    found = await load(kubeconfig, None)
    found.verify_ssl, found.ssl_ca_cert, found.cert_file, found.key_file = True, "/ca", "/certificate", "/key"
    found.username, found.password, found.api_key = "me", "mine", {}
    assert await credentials(found) == Credentials(
        server="https://10.0.0.1:6443",
        ca_path="/ca",
        insecure=False,
        certificate_path="/certificate",
        private_key_path="/key",
        username="me",
        password="mine",  # noqa: S106 - of a test
        scheme=None,
        token=None,
    )


async def test_a_pod_reaches_its_own_cluster_by_its_service_account(
    service_account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (service_account / "token").write_text("t")

    def take(client_configuration: Any) -> None:
        client_configuration.host = "https://of-the-pod"

    monkeypatch.setattr(config, "load_incluster_config", take)
    assert (await load(None, None)).host == "https://of-the-pod"


async def test_without_a_cluster_every_way_to_name_one_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "no such file"
    with pytest.raises(NoClusterError) as raised:
        await load(missing, None)
    assert str(raised.value).startswith(f"cannot reach a cluster by {missing}: ")
    assert str(raised.value).endswith("; name a kubeconfig in KUBECONFIG, or run in a pod with a service account")


async def test_a_context_that_the_default_kubeconfig_lacks_is_told(
    kubeconfig: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kubernetes.aio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig))
    with pytest.raises(NoClusterError, match=r"cannot reach a cluster by the default kubeconfig: .*k9"):
        await load(None, "k9")


def test_the_own_namespace_is_that_of_the_pod_and_default_elsewhere(service_account: Path) -> None:
    assert own_namespace() == "default"
    (service_account / "namespace").write_text("ops\n")
    assert own_namespace() == "ops"
