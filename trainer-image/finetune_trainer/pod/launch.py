"""`python -m finetune_trainer.pod.launch`: starts this pod's ranks, with a configuration that a person can use again.

One process trains alone and needs no launcher. More are started by `accelerate launch`, in this very process.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import yaml

from finetune_trainer import log
from finetune_trainer.atomic import replace_file
from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import RENDEZVOUS_PORT, Device, Env, RunConfig, Stage
from finetune_trainer.errors import Interrupted, StageError
from finetune_trainer.pod.handshake import Handshake
from finetune_trainer.pod.rendezvous import Place, meet
from finetune_trainer.pod.report import Reporter
from finetune_trainer.pod.result import leave
from finetune_trainer.pod.runconfig import node_rank, read_config
from finetune_trainer.pod.worker import die_with_parent
from finetune_trainer.training import trained
from finetune_trainer.workspace import Paths

RENDEZVOUS_SECONDS: Final = 120
"""How long torch's rendezvous waits. It begins when all pods are there, so one that is missing now is lost."""

_ASK_EVERY_SECONDS: Final = 0.1

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
        settings = launch_config(config, os.environ)
        earlier = trained.earlier_result(config, paths)
    except StageError as error:
        earlier = error.result(Stage.TRAIN)
    if earlier is not None:
        leave(files.results, 0, earlier)
        sys.exit(earlier.exit_code)
    log.configure(config, stage=Stage.TRAIN.value, rank=node_rank(os.environ))
    _launch(config, settings, files)


def _launch(config: RunConfig, settings: dict[str, Any], files: Handshake) -> None:
    text = yaml.safe_dump(settings, sort_keys=False)
    replace_file(files.launch_config, _BY_HAND.format(device=config.topology.device) + text)
    os.environ["ACCELERATE_USE_CPU"] = str(config.topology.device is Device.CPU).lower()
    if config.topology.world_size == 1:
        sys.argv = [WORKER]
        runpy.run_module(WORKER, run_name="__main__")
        return
    from accelerate.commands import launch as accelerate  # noqa: PLC0415 - seconds that one process need not wait

    try:
        with ending_when_asked(files):
            meet(Place.of(config, os.environ), Reporter(Stage.TRAIN, files.progress_file))
    except StageError as error:
        leave(files.results, 0, error.result(Stage.TRAIN))
        sys.exit(error.exit_code)
    patience = ["--rdzv_conf", f"timeout={RENDEZVOUS_SECONDS}"]
    sys.argv = ["accelerate-launch", "--config_file", str(files.launch_config), *patience, "--module", WORKER]
    accelerate.main()


@contextmanager
def ending_when_asked(files: Handshake) -> Iterator[None]:
    """While the block waits, for whatever it is, the wish to stop ends this process at once as interrupted."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_ASK_EVERY_SECONDS):
            if files.stop_file.exists():
                error = Interrupted("asked to stop while it was waiting for the other pods; nothing is lost")
                leave(files.results, 0, error.result(Stage.TRAIN))
                os._exit(error.exit_code)

    thread = threading.Thread(target=watch, name="stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def launch_config(config: RunConfig, environ: Mapping[str, str]) -> dict[str, Any]:
    """The configuration file of `accelerate launch` for this pod."""
    topology = config.topology
    return {
        "compute_environment": "LOCAL_MACHINE",
        **Choice.of(config.training, topology).strategy.launch_config(topology),
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


if __name__ == "__main__":
    main()
