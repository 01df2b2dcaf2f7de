"""The node's network: a namespace of its own, joined to the host by one link.

Everything here lives in the node's namespace or is one end of the link, so it goes with the
namespace, however the cluster ends. Pods hang off point-to-point links that the node routes, which
needs no bridge netfilter for services whose pods share the node.
"""

import json
import socket
import struct
from contextlib import suppress
from pathlib import Path

from .errors import CommandFailedError
from .layout import Instance
from .progress import run

LINK = "node0"
DNS_TIMEOUT_SECONDS = 1.0


def join_host(instance: Instance, host_network: int) -> None:
    """Make the link; run inside the node's namespace, with an open file of the host's namespace."""
    host = f"/proc/self/fd/{host_network}"
    _ip(f"link add {LINK} type veth peer name {instance.name} netns {host}", host_network)
    _ip("link set lo up")
    _ip(f"addr add {instance.node_ip}/30 dev {LINK}")
    _ip(f"link set {LINK} up")
    # What the node itself sends to a service is routed before kube-proxy rewrites it.
    _ip(f"route add {instance.services} via {instance.host_ip} dev {LINK}")
    enter = ["nsenter", f"--net={host}", "ip"]
    for command in (
        f"addr add {instance.host_ip}/30 dev {instance.name}",
        f"link set {instance.name} up",
        f"route add {instance.network} via {instance.node_ip} dev {instance.name}",
    ):
        run([*enter, *command.split()], pass_fds=(host_network,))
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def leave_host(instance: Instance) -> None:
    """Remove the link if it is still there: a connection that has not ended keeps a namespace for minutes."""
    if Path("/sys/class/net", instance.name).exists():
        with suppress(CommandFailedError):  # gone in the meantime
            run(["ip", "link", "delete", instance.name])


def cni_configuration(instance: Instance) -> str:
    """The pods' network, as a CNI configuration list."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": instance.pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": ipam}]}, indent=2)


def resolves(server: str, name: str) -> bool:
    """Whether a DNS server answers an address for a name."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    query = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + question + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.settimeout(DNS_TIMEOUT_SECONDS)
        try:
            udp.sendto(query, (server, 53))
            reply = udp.recv(512)
        except OSError:
            return False
    _, flags, _, answers = struct.unpack(">4H", reply[:8])
    return bool(flags & 0xF == 0 and answers > 0)


def _ip(arguments: str, *files: int) -> None:
    run(["ip", *arguments.split()], pass_fds=files)
