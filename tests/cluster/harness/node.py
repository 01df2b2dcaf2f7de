"""The node: process 1 of the instance's own namespaces. Everything that runs ends with it.

Runs as `python -m <harness>.node INDEX HOST_NETWORK`, where HOST_NETWORK is an open file of the
host's network namespace.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from . import components, credentials, images, network, storage
from .api import Api, RefusedError
from .components import Component
from .errors import ClusterFailedError
from .layout import NODE, Instance
from .progress import run, say

READY_SECONDS = 120.0
SERVICE_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
# Folders that programs insist on; each is the instance's own inside its mount namespace.
PRIVATE = {
    "/run": None,
    "/var/lib/cni": "cni-state",
    "/var/lib/kubelet": "kubelet",
    "/var/log/containers": "container-logs",
    "/var/log/pods": "pod-logs",
}

# Settings of the whole kernel that the kubelet would change: it finds here what it wants to set.
KERNEL_SETTINGS = {
    "kernel/keys/root_maxbytes": "25000000",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
}


def main() -> None:
    manager = os.fork()
    if manager == 0:
        try:
            manage(Instance(int(sys.argv[1])), int(sys.argv[2]))
        except Exception as error:  # noqa: BLE001 - whatever it is, the node must say so and end
            say(f"the cluster stopped: {error}")
        os._exit(1)
    while os.wait()[0] != manager:
        pass  # an orphan, which process 1 must reap


def manage(instance: Instance, host_network: int) -> NoReturn:
    """Bring everything up, then wait for the first component that ends."""
    hide_host_folders(instance)
    hide_kernel_settings(instance)
    network.join_host(instance, host_network)
    os.close(host_network)
    for folder in ("logs", "s3", "volumes", "volume-plugins"):
        (instance.home / folder).mkdir()
    credentials.write(instance)
    components.write_configuration(instance)
    node = Node(instance)
    node.bring_up()
    while True:
        node.check()
        time.sleep(0.5)


def hide_host_folders(instance: Instance) -> None:
    """Mount the instance's own folders over those that would be shared with the host."""
    for target, source in PRIVATE.items():
        Path(target).mkdir(parents=True, exist_ok=True)
        if source is None:
            run(["mount", "-t", "tmpfs", "tmpfs", target])
        else:
            (instance.home / source).mkdir()
            run(["mount", "--bind", instance.home / source, target])


def hide_kernel_settings(instance: Instance) -> None:
    """Mount files over the kernel's settings, so that the host's stay as they are."""
    folder = instance.home / "kernel-settings"
    for name, value in KERNEL_SETTINGS.items():
        setting = folder / name
        setting.parent.mkdir(parents=True, exist_ok=True)
        setting.write_text(f"{value}\n")
        if Path("/proc/sys", name).exists():
            run(["mount", "--bind", setting, Path("/proc/sys", name)])


class Node:
    """The components of one instance."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._api = Api(instance)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def bring_up(self) -> None:
        """Start the components in their order, and tell when all of them can be used."""
        instance, api, began = self._instance, self._api, time.monotonic()
        self._start(components.before_api(instance))
        self._until("the API server", api.healthy)
        self._start(components.after_api(instance))
        control_plane = time.monotonic() - began
        self._until("the storage class", lambda: attempt(lambda: api.create(storage.CLASSES, storage.STORAGE_CLASS)))
        self._until("containerd", lambda: images.is_serving(instance))
        images.import_built_in(instance)
        self._until("the node", lambda: node_is_ready(api))
        self._until("the service account", lambda: attempt(lambda: api.get(SERVICE_ACCOUNT)))
        self._until("DNS", lambda: network.resolves(instance.node_ip, "kubernetes.default.svc.cluster.local"))
        instance.ready.touch()
        say(f"control plane after {control_plane:.1f} s, all of it after {time.monotonic() - began:.1f} s")

    def check(self) -> None:
        """Raise ClusterFailedError when a component has ended."""
        for name, process in self._running.items():
            if process.poll() is not None:
                log = self._instance.logs / f"{name}.log"
                raise ClusterFailedError(f"{name} ended with status {process.returncode}:\n{log.read_text()[-2000:]}")

    def _start(self, wanted: list[Component]) -> None:
        for component in wanted:
            with (self._instance.logs / f"{component.name}.log").open("ab") as log:
                environment = dict(os.environ) | component.environment
                process = subprocess.Popen(component.argv, env=environment, stdout=log, stderr=log)
            self._running[component.name] = process

    def _until(self, what: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not done():
            self.check()
            if time.monotonic() > deadline:
                raise ClusterFailedError(f"{what} was not ready after {READY_SECONDS:.0f} s")
            time.sleep(0.05)


def attempt(action: Callable[[], object]) -> bool:
    try:
        action()
    except (OSError, RefusedError):
        return False
    return True


def node_is_ready(api: Api) -> bool:
    try:
        conditions = api.get(f"/api/v1/nodes/{NODE}").get("status", {}).get("conditions", [])
    except (OSError, RefusedError):
        return False
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


if __name__ == "__main__":
    main()
