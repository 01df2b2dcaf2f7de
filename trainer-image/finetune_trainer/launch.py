"""`python -m finetune_trainer.launch`: brings this pod's ranks up, with a configuration that a person can use again.

One process trains alone and needs no launcher. More are started by `accelerate launch`, in this very process.
"""

from __future__ import annotations

import os
import runpy
import socket
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import yaml

from finetune_trainer import log, trained
from finetune_trainer.contract import RENDEZVOUS_PORT, Device, Env, RunConfig, Stage
from finetune_trainer.errors import PeerLost, StageError
from finetune_trainer.handshake import Handshake, replace_file
from finetune_trainer.report import Reporter
from finetune_trainer.result import leave
from finetune_trainer.runconfig import node_rank, read_config
from finetune_trainer.worker import die_with_parent
from finetune_trainer.workspace import Paths

RENDEZVOUS_SECONDS: Final = 300
"""How long a pod waits for rank 0's name and port: pods start in any order, and images take their time."""

WORKER: Final = "finetune_trainer.train"

_BY_HAND: Final = """\
# Repeats the run by hand, on each machine with its machine_rank (was on {device}; on cpu, ACCELERATE_USE_CPU=true):
#   FINETUNE_RUN_CONFIG=run.json FINETUNE_WORKSPACE=... FINETUNE_SCRATCH=... FINETUNE_SECRETS=... \\
#   FINETUNE_VOLUMES=... accelerate launch --config_file accelerate.yaml --module finetune_trainer.train
"""


def main() -> None:
    die_with_parent()
    paths = Paths.from_env(os.environ)
    files = Handshake(paths.scratch)
    try:
        config = read_config(Stage.TRAIN, os.environ)
        earlier = trained.earlier_result(config, paths)
    except StageError as error:
        earlier = error.result(Stage.TRAIN)
    if earlier is not None:
        leave(files.results, 0, earlier)
        sys.exit(earlier.exit_code)
    log.configure(config, stage=Stage.TRAIN.value, rank=node_rank(os.environ))
    _launch(config, files)


def _launch(config: RunConfig, files: Handshake) -> None:
    settings = yaml.safe_dump(launch_config(config, os.environ), sort_keys=False)
    replace_file(files.launch_config, _BY_HAND.format(device=config.topology.device) + settings)
    os.environ["ACCELERATE_USE_CPU"] = str(config.topology.device is Device.CPU).lower()
    if config.topology.world_size == 1:
        sys.argv = [WORKER]
        runpy.run_module(WORKER, run_name="__main__")
        return
    from accelerate.commands import launch as accelerate  # noqa: PLC0415 - seconds that one process need not wait

    reporter = Reporter(Stage.TRAIN, files.progress_file)
    try:
        await_rendezvous(config, os.environ, reporter.notify)
    except StageError as error:
        leave(files.results, 0, error.result(Stage.TRAIN))
        sys.exit(error.exit_code)
    sys.argv = ["accelerate-launch", "--config_file", str(files.launch_config), "--module", WORKER]
    accelerate.main()


def launch_config(config: RunConfig, environ: Mapping[str, str]) -> dict[str, Any]:
    """The configuration file of `accelerate launch` for this pod.

    On CPU the type is MULTI_GPU as well: with MULTI_CPU, and with `--cpu`, accelerate 1.15 starts one process.
    The worker takes `ACCELERATE_USE_CPU` from the environment, and refuses a world that is not the planned one.
    """
    topology = config.topology
    several = topology.world_size > 1
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "MULTI_GPU" if several else "NO",
        "use_cpu": topology.device is Device.CPU and not several,
        "mixed_precision": "no",
        "num_machines": topology.nodes,
        "num_processes": topology.world_size,
        "machine_rank": node_rank(environ),
        "main_process_ip": environ.get(Env.MASTER_ADDR) or "127.0.0.1",
        "main_process_port": int(environ.get(Env.MASTER_PORT) or RENDEZVOUS_PORT),
        "same_network": True,
        "rdzv_backend": "static",
        "main_training_function": "main",
        "enable_cpu_affinity": False,
        "debug": False,
    }


def await_rendezvous(config: RunConfig, environ: Mapping[str, str], notify: Callable[[str], None]) -> None:
    """Wait until rank 0's host name resolves and, on the other pods, its port answers. Raises PeerLost."""
    if config.topology.nodes == 1:
        return
    host = environ.get(Env.MASTER_ADDR) or ""
    port = int(environ.get(Env.MASTER_PORT) or RENDEZVOUS_PORT)
    deadline = time.monotonic() + RENDEZVOUS_SECONDS
    notify(f"waiting for rank 0 at {host}:{port}")
    while (trouble := _rendezvous_trouble(host, port, must_answer=node_rank(environ) > 0)) is not None:
        if time.monotonic() > deadline:
            raise PeerLost(f"rank 0 at {host}:{port} did not appear within {RENDEZVOUS_SECONDS} s: {trouble}")
        time.sleep(0.2)
    notify("joining the other ranks")


def _rendezvous_trouble(host: str, port: int, *, must_answer: bool) -> str | None:
    try:
        if not must_answer:
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            return None
        with socket.create_connection((host, port), timeout=2):
            return None
    except OSError as error:
        return str(error)


if __name__ == "__main__":
    main()
