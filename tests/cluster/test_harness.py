"""What the other tests of this folder rely on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cluster.harness import cluster as clusters
from tests.cluster.harness import guardian
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.images import BASE
from tests.cluster.harness.layout import COPIES, Instance
from tests.cluster.harness.pods import venv_pod_template
from tests.cluster.harness.s3 import S3

REPOSITORY = Path(__file__).resolve().parents[2]
RESTRICTED_POD = {
    "runAsNonRoot": True,
    "runAsUser": 65532,
    "runAsGroup": 65532,
    "seccompProfile": {"type": "RuntimeDefault"},
}
RESTRICTED_CONTAINER = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
GET = r"printf 'GET / HTTP/1.0\r\n\r\n'"
STARTS_A_CLUSTER = """
import sys
from tests.cluster.harness import cluster
print(cluster.start().instance.index, flush=True)
sys.stdin.read()
"""


def pod(name: str, *command: str, volumes: dict[str, dict[str, Any]] | None = None) -> dict[str, Any]:
    """A restricted pod of the base image that runs once; `volumes` are mounted at /NAME."""
    volumes = volumes or {}
    container = {
        "name": "main",
        "image": BASE,
        "imagePullPolicy": "IfNotPresent",
        "command": list(command),
        "securityContext": RESTRICTED_CONTAINER,
        "volumeMounts": [{"name": volume, "mountPath": f"/{volume}"} for volume in volumes],
    }
    spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "securityContext": RESTRICTED_POD,
        "containers": [container],
        "volumes": [{"name": volume, **source} for volume, source in volumes.items()],
    }
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}


def run_pod(cluster: Cluster, namespace: str, manifest: dict[str, Any]) -> str:
    """Run a pod to its successful end and return its log, read through the API server."""
    cluster.apply(manifest, namespace)
    name = manifest["metadata"]["name"]
    until(lambda: phase(cluster, namespace, name) in {"Succeeded", "Failed"}, seconds=60)
    log = cluster.kubectl("logs", name, "--namespace", namespace)
    assert phase(cluster, namespace, name) == "Succeeded", log
    return log


def phase(cluster: Cluster, namespace: str, name: str) -> str:
    return str(cluster.get("pod", name, namespace)["status"]["phase"])


def until(done: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"still not so after {seconds} s"
        time.sleep(0.1)


def host_traces(instance: Instance) -> list[str]:
    """What the host shows of an instance: processes, mounts, links, routes, cgroups, its folder."""
    processes = [
        f"process {path.parent.name}"
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if str(instance.home).encode() in _read(path)
    ]
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(instance.home) in line]
    links = [f"link {path}" for path in Path("/sys/class/net").glob(instance.name)]
    routes = subprocess.run(["ip", "route"], capture_output=True, text=True, check=True).stdout.splitlines()
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{instance.name}")]
    folder = [str(instance.home)] if instance.home.exists() else []
    return [*processes, *mounts, *links, *(line for line in routes if instance.name in line), *cgroups, *folder]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_the_node_is_ready(cluster: Cluster) -> None:
    [node] = cluster.get("nodes")
    ready = next(condition for condition in node["status"]["conditions"] if condition["type"] == "Ready")
    assert ready["status"] == "True"


def test_a_pod_runs_as_nobody_and_its_log_is_read_through_the_api_server(cluster: Cluster, namespace: str) -> None:
    assert run_pod(cluster, namespace, pod("hello", "sh", "-c", "id -u; echo hello")) == "65532\nhello\n"


def test_the_pods_of_an_indexed_job_find_each_other_by_name(cluster: Cluster, namespace: str) -> None:
    serve = "mkdir /tmp/web && echo found > /tmp/web/index.html && httpd -f -p 8000 -h /tmp/web"
    lookup = f"nslookup -type=a ring-0.ring.{namespace}.svc.cluster.local | awk '/^Address: /{{print $2}}'"
    fetch = (
        f'until a=$({lookup}) && [ -n "$a" ] && {GET} | nc -w 2 $a 8000 2>/dev/null | grep -x found; do sleep 0.2; done'
    )
    template = pod("", "sh", "-c", f"if [ $JOB_COMPLETION_INDEX = 0 ]; then {serve}; else {fetch}; fi")["spec"]
    template["containers"][0]["volumeMounts"] = [{"name": "tmp", "mountPath": "/tmp"}]  # noqa: S108 - in the pod
    spec = template | {"subdomain": "ring", "volumes": [{"name": "tmp", "emptyDir": {}}]}
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "ring"},
            "spec": {"clusterIP": "None", "selector": {"app": "ring"}, "publishNotReadyAddresses": True},
        },
        namespace,
    )
    cluster.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "ring"},
            "spec": {
                "completionMode": "Indexed",
                "completions": 2,
                "parallelism": 2,
                "template": {"metadata": {"labels": {"app": "ring"}}, "spec": spec},
            },
        },
        namespace,
    )
    until(lambda: cluster.get("job", "ring", namespace)["status"].get("completedIndexes") == "1", seconds=60)
    second = "batch.kubernetes.io/job-completion-index=1"
    assert cluster.kubectl("logs", "--selector", second, "--namespace", namespace) == "found\n"


@pytest.mark.parametrize("mode", ["ReadWriteOnce", "ReadWriteMany"])
def test_a_claim_is_bound_and_writable_by_nobody_and_goes_with_its_data(
    cluster: Cluster, namespace: str, mode: str
) -> None:
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "work"},
        "spec": {"accessModes": [mode], "resources": {"requests": {"storage": "1Gi"}}},
    }
    cluster.apply(claim, namespace)
    volumes = {"work": {"persistentVolumeClaim": {"claimName": "work"}}}
    run_pod(cluster, namespace, pod("writes", "sh", "-c", "echo kept > /work/file", volumes=volumes))
    assert run_pod(cluster, namespace, pod("reads", "cat", "/work/file", volumes=volumes)) == "kept\n"
    volume = cluster.get("pvc", "work", namespace)["spec"]["volumeName"]
    cluster.kubectl("delete", "pod", "writes", "reads", "--namespace", namespace)
    cluster.kubectl("delete", "pvc", "work", "--namespace", namespace)
    until(lambda: all(left["metadata"]["name"] != volume for left in cluster.get("pv")), seconds=30)
    if cluster.instance is not None:
        assert not (cluster.instance.volumes / volume).exists()


def test_host_and_pods_reach_the_object_store_under_one_endpoint(cluster: Cluster, s3: S3, namespace: str) -> None:
    bucket = s3.make_bucket(s3.make_bucket(namespace))  # again, as a second run against one store
    s3.put(bucket, "data/train file.jsonl", b"{}")
    assert s3.keys(bucket, "data/") == ["data/train file.jsonl"]
    assert s3.get(bucket, "data/train file.jsonl") == b"{}"
    address, port = s3.endpoint.removeprefix("http://").split(":")
    reach = f"{GET} | nc -w 5 {address} {port} | grep -o 'HTTP/1.1 403'"
    assert run_pod(cluster, namespace, pod("reach", "sh", "-c", reach)) == "HTTP/1.1 403\n"


def test_a_pod_runs_the_virtual_environment_of_the_host(cluster: Cluster, namespace: str) -> None:
    manifest = pod("python")
    template = venv_pod_template(Path(sys.prefix), REPOSITORY)["spec"]
    [trainer] = template["containers"]
    program = "import os, sys, ssl, socket, yaml; print(sys.prefix, os.getuid())"
    trainer |= {"command": ["python", "-c", program], "securityContext": RESTRICTED_CONTAINER}
    manifest["spec"] |= template
    assert run_pod(cluster, namespace, manifest) == f"{sys.prefix} 65532\n"


def test_an_image_built_here_runs_there(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    if cluster.instance is None:
        pytest.skip("images cannot be brought into a cluster that was there already")
    (tmp_path / "Containerfile").write_text(f"ARG BASE\nFROM {BASE}\nARG WORD\nUSER 0\nRUN echo $WORD > /word\n")
    cluster.build_image(tmp_path / "Containerfile", tmp_path, "localhost/word:test", {"WORD": "built"})
    manifest = pod("word", "cat", "/word")
    manifest["spec"]["containers"][0]["image"] = "localhost/word:test"
    assert run_pod(cluster, namespace, manifest) == "built\n"


def test_the_requests_of_the_api_server_are_counted(cluster: Cluster, namespace: str) -> None:
    def created() -> int:
        counts = cluster.apiserver_request_counts()
        return sum(
            count for request, count in counts.items() if (request.verb, request.resource) == ("POST", "configmaps")
        )

    before = created()
    for number in range(3):
        cluster.kubectl("create", "configmap", f"counted-{number}", "--namespace", namespace)
    assert created() - before >= 3


def test_an_advertised_resource_can_be_requested(cluster: Cluster, namespace: str) -> None:
    cluster.advertise("nvidia.com/gpu", 8)
    manifest = pod("gpu", "true")
    manifest["spec"]["containers"][0]["resources"] = {"limits": {"nvidia.com/gpu": "2"}}
    run_pod(cluster, namespace, manifest)


def test_a_second_copy_runs_beside_the_first_and_leaves_nothing_when_its_tests_are_killed(cluster: Cluster) -> None:
    if cluster.instance is None:
        pytest.skip("this is about clusters that the harness starts")
    owner = subprocess.Popen(
        [sys.executable, "-c", STARTS_A_CLUSTER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=REPOSITORY
    )
    assert owner.stdout is not None
    instance = Instance(int(owner.stdout.readline()))
    assert instance != cluster.instance
    second = clusters.of(instance)
    second.apply(pod("sleeps", "sleep", "1000"), "default")
    until(lambda: phase(second, "default", "sleeps") == "Running", seconds=60)
    assert host_traces(instance)

    os.kill(owner.pid, signal.SIGKILL)
    owner.wait()

    until(lambda: host_traces(instance) == [], seconds=20)
    assert json.loads(cluster.kubectl("get", "--raw", "/version"))["minor"] == "36"


def test_nothing_runs_on_when_even_the_guardian_is_killed(cluster: Cluster) -> None:
    if cluster.instance is None:
        pytest.skip("this is about clusters that the harness starts")
    second = clusters.start()
    assert second.instance is not None
    second.apply(pod("sleeps", "sleep", "1000"), "default")
    until(lambda: phase(second, "default", "sleeps") == "Running", seconds=60)

    os.kill(int(second.instance.guardian_pid.read_text()), signal.SIGKILL)

    inert = ("/sys/fs/cgroup/", str(second.instance.home))
    instance = second.instance
    until(lambda: all(trace.startswith(inert) for trace in host_traces(instance)), seconds=20)
    guardian.sweep_abandoned()
    assert host_traces(instance) == []


def test_a_link_that_was_left_behind_is_removed(cluster: Cluster) -> None:
    if cluster.instance is None:
        pytest.skip("this is about clusters that the harness starts")
    instance = Instance(COPIES - 1)
    link = ["ip", "link", "add", instance.name, "type", "veth", "peer", "name", "left-behind"]
    subprocess.run(link, check=True)
    assert host_traces(instance)
    guardian.sweep(instance)
    assert host_traces(instance) == []
