"""The processes of the node, and the configuration files that they read."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from . import images
from .credentials import credentials
from .layout import NODE, S3_ACCESS_KEY, S3_SECRET_KEY, Instance
from .network import cni_configuration

PLUGINS = Path("/usr/lib/cni")
ETCD = "http://127.0.0.1:2379"
CONTAINERD = """\
version = 2
root = "{home}/containerd"
state = "/run/containerd-state"

[grpc]
address = "{socket}"

[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{sandbox}"
restrict_oom_score_adj = true
stream_server_address = "127.0.0.1"

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{home}/cni"
"""
COREFILE = """\
.:53 {{
    bind {address}
    errors
    health 127.0.0.1:8080
    ready 127.0.0.1:8181
    kubernetes cluster.local in-addr.arpa {{
        kubeconfig {kubeconfig}
        pods insecure
        ttl 1
    }}
}}
"""


@dataclass(frozen=True)
class Component:
    """A process of the node: its command without flags, its flags by name, and its environment."""

    name: str
    command: tuple[str, ...]
    flags: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def argv(self) -> list[str]:
        return [*self.command, *(f"--{name}={value}" for name, value in self.flags.items())]


def write_configuration(instance: Instance) -> None:
    """Write what containerd, the kubelet, kube-proxy and CoreDNS read."""
    home = instance.home
    containerd = {"home": home, "socket": instance.containerd_socket, "sandbox": images.SANDBOX, "plugins": PLUGINS}
    files = {
        "containerd.toml": CONTAINERD.format(**containerd),
        "cni/10-pods.conflist": cni_configuration(instance),
        "kubelet.json": json.dumps(_kubelet_configuration(instance), indent=2),
        "kube-proxy.json": json.dumps(_proxy_configuration(instance), indent=2),
        "Corefile": COREFILE.format(address=instance.node_ip, kubeconfig=instance.kubeconfig),
        "resolv.conf": f"nameserver {instance.node_ip}\n",
    }
    for name, text in files.items():
        path = home / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)


def before_api(instance: Instance) -> list[Component]:
    """What starts at once: the API server, what it needs, and what needs nothing."""
    home = instance.home
    etcd = {
        "data-dir": f"{home}/etcd",
        "listen-client-urls": ETCD,
        "advertise-client-urls": ETCD,
        "listen-peer-urls": "http://127.0.0.1:2380",
        "unsafe-no-fsync": "true",
        "log-level": "warn",
    }
    containerd = ("containerd", "--config", f"{home}/containerd.toml", "--log-level", "warn")
    keys = {"ROOT_ACCESS_KEY": S3_ACCESS_KEY, "ROOT_SECRET_KEY": S3_SECRET_KEY}
    gateway = ("versitygw", "--port", f"{instance.node_ip}:7070", "posix", f"{home}/s3")
    return [
        Component("etcd", _cluster(instance, "etcd"), etcd),
        Component("kube-apiserver", _cluster(instance, "kube-apiserver"), _api_server(instance)),
        Component("containerd", containerd),
        Component("versitygw", (f"{instance.bin}/{gateway[0]}", *gateway[1:]), environment=keys),
    ]


def after_api(instance: Instance) -> list[Component]:
    """What starts once the API server answers."""
    home, kubeconfig = instance.home, str(instance.kubeconfig)
    controllers = {
        "kubeconfig": kubeconfig,
        "leader-elect": "false",
        "root-ca-file": str(credentials(instance).certificate),
        "service-account-private-key-file": str(credentials(instance).service_account_key),
        "flex-volume-plugin-dir": f"{home}/volume-plugins",
    }
    kubelet = {
        "config": f"{home}/kubelet.json",
        "kubeconfig": kubeconfig,
        "hostname-override": NODE,
        "node-ip": instance.node_ip,
    }
    scheduler = {"kubeconfig": kubeconfig, "leader-elect": "false"}
    storage = (sys.executable, "-m", f"{__package__}.storage", str(instance.index))
    return [
        Component("kube-controller-manager", _cluster(instance, "kube-controller-manager"), controllers),
        Component("kube-scheduler", _cluster(instance, "kube-scheduler"), scheduler),
        Component("kubelet", _cluster(instance, "kubelet"), kubelet),
        Component("kube-proxy", _cluster(instance, "kube-proxy"), {"config": f"{home}/kube-proxy.json"}),
        Component("coredns", (f"{instance.bin}/coredns", "-conf", f"{home}/Corefile")),
        Component("storage", storage),
    ]


def _cluster(instance: Instance, component: str) -> tuple[str, str]:
    return (f"{instance.bin}/cluster", component)


def _api_server(instance: Instance) -> dict[str, str]:
    keys = credentials(instance)
    return {
        "advertise-address": instance.node_ip,
        "allow-privileged": "true",
        "authorization-mode": "RBAC",
        "etcd-servers": ETCD,
        "kubelet-preferred-address-types": "InternalIP",
        "secure-port": "6443",
        "service-account-issuer": "https://kubernetes.default.svc",
        "service-account-key-file": str(keys.service_account_key),
        "service-account-signing-key-file": str(keys.service_account_key),
        "service-cluster-ip-range": instance.services,
        "shutdown-delay-duration": "0s",
        "tls-cert-file": str(keys.certificate),
        "tls-private-key-file": str(keys.certificate_key),
        "token-auth-file": str(keys.tokens),
    }


def _kubelet_configuration(instance: Instance) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": instance.node_ip,
        # The API server asks for logs without credentials: in this test cluster only.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{instance.name}",
        "clusterDNS": [instance.node_ip],
        "clusterDomain": "cluster.local",
        "containerRuntimeEndpoint": f"unix://{instance.containerd_socket}",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "makeIPTablesUtilChains": False,
        "oomScoreAdj": 0,
        "resolvConf": f"{instance.home}/resolv.conf",
        "volumePluginDir": f"{instance.home}/volume-plugins",
    }


def _proxy_configuration(instance: Instance) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clientConnection": {"kubeconfig": str(instance.kubeconfig)},
        "clusterCIDR": instance.pods,
        # The connection table belongs to the host, whose limits a namespace cannot change.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
        "hostnameOverride": NODE,
        "oomScoreAdj": 0,
    }
