"""Our operator against Kubeflow Trainer with JobSet: `python -m benchmarks.peers [--jobs N] [--rounds N]`.

On one control plane without nodes, whose kubelet the benchmark plays, the contenders take turns. Trainer is measured
as it is released and with JobSet's request rate, since its own is low and cannot be set.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import sandbox
from benchmarks.control_plane import ControlPlane
from benchmarks.installed import install
from benchmarks.load import connect
from benchmarks.peers import trainer
from benchmarks.peers.build import JOBSET_REQUEST_RATE, Peers, peers
from benchmarks.peers.contender import Contender, Ours
from benchmarks.peers.rounds import Restart, Round, middle, one_round, restart
from benchmarks.table import machine, show

FIGURES: dict[str, tuple[str, Callable[[Round], float]]] = {
    "jobs/s to the first pod": ("{:.1f}", lambda found: found.first_pods_per_second),
    "jobs/s to the train pod": ("{:.1f}", lambda found: found.train_pods_per_second),
    "one job, apply to first pod": ("{:.0f} ms", lambda found: found.first_pod),
    "one job, apply to train pod": ("{:.0f} ms", lambda found: found.train_pod),
    "gang of 2, a failed pod to both new ones": ("{:.0f} ms", lambda found: found.gang),
    "API requests per job": ("{:.1f}", lambda found: found.requests),
    "CPU per job, controllers": ("{:.1f} ms", lambda found: found.cpu),
    "CPU per job, control plane": ("{:.1f} ms", lambda found: found.plane_cpu),
    "memory": ("{:.0f} MB", lambda found: found.memory),
}
RESTARTS: dict[str, tuple[str, Callable[[Restart], float]]] = {
    "start to the first reconcile": ("{:.2f} s", lambda found: found.first),
    "start to all reconciled": ("{:.2f} s", lambda found: found.reconciled),
    "start to the train pod of a new job": ("{:.2f} s", lambda found: found.train_pod),
    "memory before": ("{:.0f} MB", lambda found: found.memory_before),
    "memory after": ("{:.0f} MB", lambda found: found.memory_after),
}


async def compare(plane: ControlPlane, built: Peers, chosen: argparse.Namespace) -> None:
    """Install everything, and let the contenders take turns."""
    ours = Ours(plane)
    released = trainer.TrainerAndJobSet(plane, built, built.trainer, "Trainer as released")
    quick = trainer.TrainerAndJobSet(plane, built, built.trainer_unthrottled, f"Trainer at {JOBSET_REQUEST_RATE}/s")
    turns: tuple[Contender, ...] = (ours, released, quick)
    install(plane)
    trainer.install(plane, built)
    released.start()
    trainer.install_runtime(plane)
    released.stop()
    async with connect(plane) as api:
        rounds: list[dict[str, Round]] = []
        for number in range(chosen.rounds):
            rounds.append({})
            order = turns[number % len(turns) :] + turns[: number % len(turns)]
            for turn, one in enumerate(order):
                print(f"round {number + 1}: {one.name} ...", flush=True)
                found = await one_round(plane, api, one, f"round-{number}-{turn}", chosen.jobs)
                rounds[-1][one.name] = found
        if rounds:
            report_rounds(rounds, [one.name for one in turns], chosen.jobs)
        if chosen.running:
            restarts = {}
            for turn, one in enumerate((turns[0], turns[-1])):
                print(f"{chosen.running} running jobs: {one.name} ...", flush=True)
                restarts[one.name] = await restart(plane, api, one, f"restart-{turn}", chosen.running)
            report_restarts(restarts, chosen.running)


def report_rounds(rounds: Sequence[dict[str, Round]], names: Sequence[str], jobs: int) -> None:
    """A row for each figure: medians, and the median ratio of ours to each peer within a round, with its range."""
    head = ["figure", names[0]]
    for name in names[1:]:
        head += [name, "ratio"]
    rows = []
    for figure, (form, value) in FIGURES.items():
        row = [figure, form.format(middle([value(found[names[0]]) for found in rounds]))]
        for name in names[1:]:
            ratios = [value(found[names[0]]) / value(found[name]) for found in rounds]
            row += [form.format(middle([value(found[name]) for found in rounds])), spread(ratios)]
        rows.append(row)
    show(f"{jobs} jobs at once, {len(rounds)} rounds in turns", head, rows, machine("finetune-operator"))
    for name in names[:2]:
        kinds = rounds[-1][name].kinds.most_common()
        shown = [[f"{kind.user}: {kind.verb} {kind.resource}", f"{count / jobs:.2f}"] for kind, count in kinds]
        show(f"Requests per job: {name}", ["request", "per job"], [row for row in shown if row[1] != "0.00"])


def report_restarts(restarts: dict[str, Restart], jobs: int) -> None:
    """A row for each figure, with the ratio of the first contender to the second."""
    ours, theirs = restarts.values()
    rows = [
        [figure, form.format(value(ours)), form.format(value(theirs)), f"{value(ours) / value(theirs):.2f}"]
        for figure, (form, value) in RESTARTS.items()
    ]
    show(f"Restart with {jobs} running jobs", ["figure", *restarts, "ratio"], rows, machine("finetune-operator"))


def spread(ratios: list[float]) -> str:
    return f"{middle(ratios):.2f} ({min(ratios):.2f} … {max(ratios):.2f})"


def main() -> None:
    options = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__.splitlines()[0])
    options.add_argument("--jobs", type=int, default=200, help="jobs at once in a round (default %(default)s)")
    options.add_argument("--rounds", type=int, default=3, help="turns of each contender; 0 for none (default 3)")
    options.add_argument("--running", type=int, default=1000, help="jobs that run when the contender restarts; 0: none")
    chosen = options.parse_args()
    built = peers()
    sandbox.enter("benchmarks.peers")
    users = (*Ours.users, *trainer.TrainerAndJobSet.users)
    with tempfile.TemporaryDirectory() as folder, ControlPlane(Path(folder), users) as plane:
        asyncio.run(compare(plane, built, chosen))


if __name__ == "__main__":
    main()
