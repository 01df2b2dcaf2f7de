"""Fixtures: `cluster`, `s3`, `kueue`, and a fresh `namespace` whose story is kept when its test fails."""

import os
import re
import sys
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest
from tests.cluster.harness import cluster as clusters
from tests.cluster.harness import story
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.errors import UnavailableError
from tests.cluster.harness.pods import venv_pod_template
from tests.cluster.harness.s3 import S3
from tests.cluster.support import store as stores
from tests.cluster.support.jobs import Jobs
from tests.cluster.support.kueue import Kueue
from tests.cluster.support.operator import OperatorProcess
from tests.cluster.support.store import Store
from tests.told import tell

REPOSITORY = Path(__file__).resolve().parents[2]
REPORT = pytest.StashKey[pytest.TestReport]()


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A real cluster: the one of KUBECONFIG with FINETUNE_E2E=existing, else one that ends with this session."""
    if os.environ.get("FINETUNE_E2E") == "existing" and "KUBECONFIG" in os.environ:
        yield clusters.existing(Path(os.environ["KUBECONFIG"]))
        return
    started = or_skip(request.config, clusters.start)
    yield started
    assert started.instance is not None
    clusters.stop(started.instance)


@pytest.fixture(scope="session")
def s3(cluster: Cluster) -> S3:
    """An object store that this process and the pods reach under one endpoint."""
    if cluster.s3 is None:
        pytest.skip("this cluster has no object store: set FINETUNE_S3_ENDPOINT, _ACCESS_KEY and _SECRET_KEY")
    return cluster.s3


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace for one test, deleted after it; when the test fails, what happened in it is written to files."""
    words = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:40].strip("-")
    name = f"{words}-{uuid.uuid4().hex[:5]}"
    cluster.kubectl("create", "namespace", name)
    cluster.kubectl("wait", "--for=create", "serviceaccount/default", "--namespace", name, "--timeout=30s")
    yield name
    report = request.node.stash.get(REPORT, None)
    if report is not None and report.failed:
        folder = request.config.rootpath / ".cluster" / "failures" / name
        story.write(cluster, name, folder)
        tell(request.config, f"what happened in the cluster: {folder}")
    cluster.kubectl("delete", "namespace", name, "--wait=false")


def or_skip(config: pytest.Config, start: Callable[[], Cluster]) -> Cluster:
    """Start a cluster; skip where this machine cannot have one, except in CI, where that fails."""
    try:
        return start()
    except UnavailableError as error:
        reason = f"no cluster for the end-to-end tests: {error}"
        if os.environ.get("CI"):
            pytest.fail(reason)
        tell(config, reason)
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep how a test ended where its fixtures find it."""
    report = yield
    if report.when == "call" or report.failed:
        item.stash[REPORT] = report
    return report


@pytest.fixture(scope="session")
def product(cluster: Cluster) -> Cluster:
    """The cluster with the CustomResourceDefinitions of crds/."""
    for definition in sorted((REPOSITORY / "crds").glob("*.yaml")):
        cluster.apply(definition.read_text())
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
    return cluster


@pytest.fixture(scope="session")
def store(s3: S3, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A bucket with a tiny model and its data."""
    return stores.fill(s3, tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def operator(product: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """The operator as a process; a test that kills it starts it again."""
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    with OperatorProcess(product.kubeconfig, log, venv_pod_template(Path(sys.prefix), REPOSITORY)) as process:
        yield process


@pytest.fixture(scope="session")
def installed_kueue(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Kueue:
    """The real Kueue, which runs until the cluster ends; `kueue` starts it."""
    if cluster.instance is None:
        pytest.skip("Kueue's image cannot be brought into a cluster that the harness did not start")
    return Kueue.install(cluster, tmp_path_factory.mktemp("kueue"))


@pytest.fixture
def kueue(installed_kueue: Kueue) -> Kueue:
    """The real Kueue with its defaults; a test may `start` it again with options of its own."""
    installed_kueue.start()
    return installed_kueue


@pytest.fixture
def jobs(product: Cluster, operator: OperatorProcess, store: Store, namespace: str) -> Jobs:
    """A namespace with the object store's credentials, watched by the operator."""
    product.apply(store.secret(), namespace)
    return Jobs(product, namespace)


@pytest.fixture
def bare_jobs(product: Cluster, operator: OperatorProcess, namespace: str) -> Jobs:
    """A namespace watched by the operator, without an object store: for jobs whose stages are played."""
    return Jobs(product, namespace)
