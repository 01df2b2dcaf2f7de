"""Who may create FineTuneJobs may not create any pod that there can be: the chart's policies on the real API server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from tests.cluster.harness.cluster import Cluster
from tests.cluster.harness.errors import CommandFailedError
from tests.cluster.support.helm import helm
from tests.cluster.support.jobs import Jobs, Manifest
from tests.cluster.support.operator import OperatorProcess
from tests.cluster.support.waiting import until
from tests.cluster.test_helm import CHART

POLICIES = ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding")
RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")
PLAIN: Manifest = {
    "apiVersion": "finetune-operator.io/v1alpha1",
    "kind": "FineTuneJob",
    "metadata": {"name": "plain"},
    "spec": {
        "model": {"uri": "hf://owner/model"},
        "template": {"name": "lora"},
        "datasets": [{"uri": "s3://bucket/rows.jsonl"}],
        "gpus": 0,
        "workspace": {"size": "1Gi"},
    },
}
NODES = "node's namespaces"
TRAINER = {"name": "trainer"}
HOSTILE: dict[str, tuple[Any, str]] = {
    "host network": ({"hostNetwork": True}, NODES),
    "host processes": ({"hostPID": True}, NODES),
    "host memory": ({"hostIPC": True}, NODES),
    "files of the node": ({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]}, "node's files"),
    "a path that only begins as one that is allowed": (
        {"volumes": [{"name": "root", "hostPath": {"path": "/datasets-of-others"}}]},
        "node's files",
    ),
    "privileged": ({"containers": [TRAINER | {"securityContext": {"privileged": True}}]}, "privileged"),
    "escalation": (
        {"containers": [TRAINER | {"securityContext": {"allowPrivilegeEscalation": True}}]},
        "must not be privileged",
    ),
    "privileged before it starts": (
        {"initContainers": [{"name": "first", "image": "x", "securityContext": {"privileged": True}}]},
        "privileged",
    ),
    "capabilities": (
        {"containers": [TRAINER | {"securityContext": {"capabilities": {"add": ["SYS_ADMIN"]}}}]},
        "capabilities",
    ),
    "an SELinux type": ({"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}, "confinement"),
    "no seccomp": ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "confinement"),
    "all of /proc": (
        {"hostUsers": False, "containers": [TRAINER | {"securityContext": {"procMount": "Unmasked"}}]},
        "confinement",
    ),
    "a service account": ({"serviceAccountName": "builder"}, "no service account"),
    "a service account by its old name": ({"serviceAccount": "builder"}, "no service account"),
    "a token": ({"automountServiceAccountToken": True}, "no token"),
    "a token by default": ({"automountServiceAccountToken": None}, "no token"),
    "a projected token": (
        {"volumes": [{"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]},
        "no token",
    ),
    "ports of the node": (
        {"containers": [TRAINER | {"ports": [{"containerPort": 80, "hostPort": 80}]}]},
        "ports of its node",
    ),
    "a node": ({"nodeName": "node"}, "pass by the scheduler"),
    "kernel parameters": ({"securityContext": {"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}}, "kernel"),
    "another image": ({"containers": [TRAINER | {"image": "evil.example.org/miner"}]}, "images must begin with"),
    "an image of a namesake": (
        {"containers": [TRAINER | {"image": "images.example.org/team-evil/x"}]},
        "images must begin with",
    ),
    "another image beside it": ({"containers": [{"name": "side", "image": "evil"}]}, "images must begin with"),
    "an image as a volume": ({"volumes": [{"name": "i", "image": {"reference": "evil"}}]}, "images must begin with"),
    "what is no list": ({"containers": {"name": "trainer", "securityContext": {"privileged": True}}}, "denied"),
}
HARMLESS: dict[str, Any] = {
    "nothing": {},
    "null": None,
    "nulls": {"securityContext": None, "volumes": None, "initContainers": None, "nodeSelector": None},
    "placement": {"nodeSelector": {"gpu": "h200"}, "tolerations": [{"operator": "Exists"}], "priorityClassName": "x"},
    "a volume": {
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "x", "hostPath": None}],
        "containers": [TRAINER | {"volumeMounts": [{"name": "data", "mountPath": "/data"}], "securityContext": None}],
    },
    "allowed images": {
        "containers": [
            TRAINER | {"image": "images.example.org/team/trainer@sha256:0"},
            {"name": "side", "image": "images.example.org/team/side:1", "ports": [{"containerPort": 80}]},
        ]
    },
    "an allowed path": {"volumes": [{"name": "d", "hostPath": {"path": "/datasets/public"}}]},
    "an allowed capability": {
        "containers": [TRAINER | {"securityContext": {"capabilities": {"add": ["IPC_LOCK"], "drop": ["ALL"]}}}]
    },
    "the default account": {"serviceAccountName": "default", "automountServiceAccountToken": False},
}
VALUES: dict[str, Any] = {
    "crds": {"install": False},
    "admissionPolicy": {
        "allowedImages": ["images.example.org/team"],
        "allowTrustRemoteCode": False,
        "allow": {"hostPaths": ["/datasets"], "capabilities": ["IPC_LOCK"]},
    },
}


@dataclass(frozen=True)
class Release:
    """The chart without the operator: policies, an account and its rights, for one namespace and the chart's own."""

    cluster: Cluster
    name: str
    namespace: str

    @property
    def system(self) -> str:
        return f"{self.name}-system"

    @property
    def account(self) -> str:
        return f"system:serviceaccount:{self.system}:{self.name}-finetune-operator"

    def rendered(self, *kinds: str, **values: Any) -> list[Manifest]:
        """The chart's objects of these kinds."""
        given = VALUES | {"namespaces": [self.namespace, self.system]} | values
        text = helm(self.cluster, "template", self.name, str(CHART), "-n", self.system, values=given)
        return [document for document in yaml.safe_load_all(text) if document and document["kind"] in kinds]

    @contextmanager
    def installed(self) -> Iterator[Self]:
        """In force for a while."""
        everything = {"apiVersion": "v1", "kind": "List", "items": self.rendered(*POLICIES, *RIGHTS)}
        self.cluster.kubectl("create", "namespace", self.system)
        try:
            self.cluster.apply(everything)
            sly = {"hostPID": True}
            until(lambda: NODES in self.refusal(with_pod(sly)), "the jobs' policy is in force", seconds=30)
            until(lambda: NODES in self.refusal(of_operator(sly), self.account), "the Jobs' policy is", seconds=30)
            yield self
        finally:
            self.cluster.kubectl("delete", "--ignore-not-found", "-f", "-", input=json.dumps(everything))
            self.cluster.kubectl("delete", "namespace", self.system, "--wait=false")

    def refusal(self, manifest: Manifest, account: str = "", namespace: str = "") -> str:
        """What the API server says to this manifest, of the administrator or an account; nothing when it takes it."""
        whose = ["--as", account] if account else []
        command = ("create", "--dry-run=server", "-n", namespace or self.namespace, *whose, "-f", "-")
        try:
            self.cluster.kubectl(*command, input=json.dumps(manifest))
        except CommandFailedError as error:
            return str(error)
        return ""


@pytest.fixture(scope="module")
def fenced(product: Cluster) -> Iterator[Release]:
    product.kubectl("create", "namespace", "fenced")
    with Release(product, "fence", "fenced").installed() as release:
        yield release
    product.kubectl("delete", "namespace", "fenced", "--wait=false")


def with_pod(pod: Any, kind: str = "FineTuneJob") -> Manifest:
    """A job or a template with this podTemplate.spec."""
    if kind == "FineTuneJob":
        return PLAIN | {"spec": PLAIN["spec"] | {"podTemplate": {"spec": pod}}}
    return PLAIN | {"kind": kind, "spec": {"podTemplate": {"spec": pod}}}


def of_operator(pod: Manifest) -> Manifest:
    """A Job as the operator would create it, with these fields of a pod."""
    base = {"restartPolicy": "Never", "automountServiceAccountToken": False}
    containers = [{"image": "images.example.org/team/x", **container} for container in pod.get("containers", [TRAINER])]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "plain"},
        "spec": {"template": {"spec": base | pod | {"containers": containers}}},
    }


@pytest.mark.parametrize("kind", ["FineTuneJob", "FineTuneTemplate"])
@pytest.mark.parametrize("case", HOSTILE)
def test_a_job_or_template_does_not_get(case: str, kind: str, fenced: Release) -> None:
    pod, words = HOSTILE[case]
    told = fenced.refusal(with_pod(pod, kind))
    assert words in told
    assert "ValidatingAdmissionPolicy" in told


@pytest.mark.parametrize("case", HARMLESS)
def test_a_job_may_still_have(case: str, fenced: Release) -> None:
    assert fenced.refusal(with_pod(HARMLESS[case])) == ""


def test_code_of_a_model_runs_only_where_the_administrator_lets_it(fenced: Release) -> None:
    trusting = PLAIN | {"spec": PLAIN["spec"] | {"model": {"uri": "hf://owner/model", "trustRemoteCode": True}}}
    assert "spec.model.trustRemoteCode" in fenced.refusal(trusting)


def test_no_job_runs_in_the_operators_own_namespace(fenced: Release) -> None:
    assert "is the operator's own" in fenced.refusal(PLAIN, namespace=fenced.system)
    assert fenced.refusal(with_pod({}, "FineTuneTemplate"), namespace=fenced.system) == ""


def test_namespaces_that_the_operator_does_not_watch_are_left_alone(fenced: Release, namespace: str) -> None:
    assert fenced.refusal(with_pod({"hostPID": True}), namespace=namespace) == ""


def test_a_job_from_before_the_policy_can_be_suspended_and_deleted_but_ask_for_nothing_else_that_is_refused(
    product: Cluster, namespace: str
) -> None:
    stored = with_pod({"hostPID": True})
    stored["spec"]["template"] = {"name": "not-there"}  # so that no operator starts it, after which nothing may change
    product.apply(stored, namespace)
    patch = ("patch", "ftj", "plain", "-n", namespace, "--type=merge", "-p")
    with Release(product, "later", namespace).installed():
        product.kubectl(*patch, '{"metadata": {"finalizers": ["example.org/wait"]}}')
        product.kubectl(*patch, '{"spec": {"runPolicy": {"suspend": true}}}')
        with pytest.raises(CommandFailedError, match=NODES):
            product.kubectl(*patch, '{"spec": {"podTemplate": {"spec": {"nodeSelector": {"gpu": "h200"}}}}}')
        product.kubectl("delete", "ftj", "plain", "-n", namespace, "--wait=false")
        product.kubectl(*patch, '{"metadata": {"finalizers": []}}')
        product.kubectl("wait", "--for=delete", "ftj/plain", "-n", namespace, "--timeout=20s")


@pytest.mark.parametrize("case", [case for case in HOSTILE if case != "what is no list"])
def test_what_came_past_the_jobs_policy_the_operator_may_not_create(case: str, fenced: Release) -> None:
    pod, words = HOSTILE[case]
    assert words in fenced.refusal(of_operator(pod), fenced.account)


@pytest.mark.parametrize("case", [case for case, pod in HARMLESS.items() if pod])
def test_the_operator_may_create(case: str, fenced: Release) -> None:
    assert "ValidatingAdmissionPolicy" not in fenced.refusal(of_operator(HARMLESS[case]), fenced.account)


def test_jobs_of_others_are_none_of_the_policys_business(fenced: Release) -> None:
    assert fenced.refusal(of_operator({"hostPID": True})) == ""


def test_what_the_administrators_own_pod_templates_have_the_operator_may_create(fenced: Release) -> None:
    own = {"hostNetwork": True, "volumes": [{"name": "ib", "hostPath": {"path": "/dev/infiniband"}}]}
    trainer = {"podTemplate": {"spec": own}, "enforcedPodTemplate": {"spec": {"hostIPC": True}}}
    of_jobs, of_pods = (json.dumps(policy) for policy in fenced.rendered(POLICIES[0], trainer=trainer))
    assert "/dev/infiniband" in of_pods
    assert "/dev/infiniband" not in of_jobs
    for field in ("hostNetwork", "hostIPC"):
        assert f"?{field}" in of_jobs
        assert f"?{field}" not in of_pods
    assert "?hostPID" in of_pods


@pytest.mark.parametrize("name", ["jobs", "pods"])
def test_the_api_server_finds_nothing_wrong_with_the_policy_of(name: str, fenced: Release) -> None:
    def findings() -> Any:
        policy = fenced.cluster.get("validatingadmissionpolicy", f"{fenced.name}-finetune-operator-{name}")
        return policy.get("status", {}).get("typeChecking")

    until(lambda: findings() is not None, "the API server has read the policy")
    assert findings() == {}


def test_the_policies_can_be_turned_off(fenced: Release) -> None:
    assert fenced.rendered(*POLICIES, admissionPolicy={"enabled": False}) == []


@pytest.fixture
def by_account(
    product: Cluster, operator: OperatorProcess, namespace: str, tmp_path: Path
) -> Iterator[OperatorProcess]:
    """The operator with the rights that the chart gives it and no other; the tests' own is stopped meanwhile."""
    operator.stop()
    try:
        with Release(product, "least", namespace).installed() as release:
            yield OperatorProcess(
                kubeconfig_of(release, tmp_path),
                tmp_path / "operator.log",
                {},
                NAMESPACES=json.dumps([namespace]),
                LEASE_NAMESPACE=release.system,
                LEASE_NAME=f"{release.name}-finetune-operator",
                PLAN__TRAINER_IMAGE="images.example.org/team/trainer:1",
            )
    finally:
        operator.start()


def kubeconfig_of(release: Release, folder: Path) -> Path:
    """The cluster's kubeconfig with the token of the operator's account."""
    token = release.cluster.kubectl("create", "token", f"{release.name}-finetune-operator", "-n", release.system)
    config = yaml.safe_load(release.cluster.kubeconfig.read_text())
    for user in config["users"]:
        user["user"] = {"token": token.strip()}
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def test_the_operator_has_the_rights_it_needs_and_says_what_the_policy_refuses(
    product: Cluster, namespace: str, by_account: OperatorProcess
) -> None:
    """A template of the cluster comes past the policy of jobs; the policy of the operator's Jobs stops it."""
    product.apply(
        {
            "apiVersion": PLAIN["apiVersion"],
            "kind": "ClusterFineTuneTemplate",
            "metadata": {"name": "sly"},
            "spec": {"podTemplate": {"spec": {"hostNetwork": True}}},
        }
    )
    jobs = Jobs(product, namespace)
    with by_account:
        jobs.apply(PLAIN)
        jobs.apply(PLAIN | {"metadata": {"name": "sly"}, "spec": PLAIN["spec"] | {"template": {"name": "sly"}}})
        refused = until(
            lambda: status if (status := jobs.status("sly")).get("reason") == "Rejected" else None,
            "the job is rejected",
            seconds=30,
            story=lambda: f"{jobs.status('sly')}\n{by_account.log.read_text()[-4000:]}",
        )
        assert "podTemplate.spec.hostNetwork" in refused["message"]
        jobs.until_phase("plain", "Preparing", seconds=30)
        made = {job["metadata"]["name"] for job in product.get("jobs", namespace=namespace)}
        assert made == {"plain-prepare"}
        product.kubectl("delete", "ftj", "plain", "sly", "-n", namespace)
    product.kubectl("delete", "cftt", "sly")
    assert "cannot " not in by_account.log.read_text(), "the API server's word for a right that is missing"
