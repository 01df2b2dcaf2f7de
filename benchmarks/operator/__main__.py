"""The operator on a control plane of its own: `python -m benchmarks.operator [--only SECTION ...]`.

There are no nodes; the benchmark plays the kubelet. Every figure stands beside a bare peer of the same minutes: a raw
watch, a batch/v1 Job, the operator without jobs.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.cluster.harness import build

from benchmarks import sandbox
from benchmarks.control_plane import ControlPlane
from benchmarks.installed import OPERATOR, install
from benchmarks.load import Api, connect
from benchmarks.operator.burst import burst
from benchmarks.operator.fleet import Fleet, fleet
from benchmarks.operator.neighbour import neighbour
from benchmarks.operator.starting import starting

Section = Callable[[ControlPlane, Api], Awaitable[None]]


def sections(chosen: argparse.Namespace) -> dict[str, Section]:
    """What can be chosen, in the order of running."""
    jobs = Fleet(chosen.running, chosen.waiting, chosen.ended)
    return {
        "starting": lambda plane, api: starting(plane, api, chosen.rounds),
        "burst": lambda plane, api: burst(plane, api, chosen.burst),
        "neighbour": lambda plane, api: neighbour(plane, api, chosen.crashing),
        "fleet": lambda plane, api: fleet(plane, api, jobs),
    }


async def run(plane: ControlPlane, section: Section) -> None:
    install(plane)
    async with connect(plane) as api:
        await section(plane, api)


def parser() -> argparse.ArgumentParser:
    options = argparse.ArgumentParser(prog="python -m benchmarks.operator", description=__doc__.splitlines()[0])
    names = ("starting", "burst", "neighbour", "fleet")
    options.add_argument("--only", choices=names, nargs="+", default=names, help="sections to run (default: all)")
    options.add_argument("--rounds", type=int, default=3, help="of `starting` (default %(default)s)")
    options.add_argument("--burst", type=int, default=1000, help="jobs at once (default %(default)s)")
    options.add_argument("--crashing", type=int, default=5000, help="of the neighbour (default %(default)s)")
    options.add_argument("--running", type=int, default=2500, help="of the fleet: with a Job and a pod (default 2500)")
    options.add_argument("--waiting", type=int, default=2500, help="of the fleet: for a template (default 2500)")
    options.add_argument("--ended", type=int, default=5000, help="of the fleet: succeeded (default 5000)")
    return options


def main() -> None:
    chosen = parser().parse_args()
    build.programs()
    sandbox.enter("benchmarks.operator")
    for name, section in sections(chosen).items():
        if name in chosen.only:
            with tempfile.TemporaryDirectory() as folder, ControlPlane(Path(folder), (OPERATOR,)) as plane:
                asyncio.run(run(plane, section))


if __name__ == "__main__":
    main()
