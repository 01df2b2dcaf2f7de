"""`python -m tests.cluster.harness build | up | down | status`, from the root of the repository."""

import argparse
import os
import sys
from collections.abc import Callable

from . import build, cluster, guardian, layout
from .progress import say


def main() -> None:
    parser = argparse.ArgumentParser(prog="harness", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    build_parser = commands.add_parser(
        "build", help="install packages, build programs and images; prints the folder of helm, kubectl"
    )
    build_parser.add_argument("--kueue", action="store_true", help="Kueue's manager too, for `make test-kueue`")
    commands.add_parser("up", help="start a cluster that runs until `down`; prints shell commands that select it")
    down_parser = commands.add_parser("down", help="stop the clusters that `up` started")
    down_parser.add_argument("index", nargs="*", type=int, help="only these; all of them without")
    commands.add_parser("status", help="name the clusters that `up` started")
    arguments = parser.parse_args()
    match arguments.command:
        case "build":
            prepare(*([build.kueue] if arguments.kueue else []))
        case "up":
            up()
        case "down":
            down(arguments.index)
        case "status":
            status()


def prepare(*more: Callable[[], object]) -> None:
    cluster.prepare()
    for build_it in more:
        build_it()
    write(str(build.bin_folder()))


def up() -> None:
    started = cluster.start(detached=True)
    instance = started.instance
    assert instance is not None
    say(f"it runs until `python -m {__package__} down {instance.index}`")
    write(f"export KUBECONFIG={instance.kubeconfig}")
    write(f"export PATH={instance.bin}{os.pathsep}$PATH")
    write(f"export FINETUNE_S3_ENDPOINT={instance.s3_endpoint}")
    write(f"export FINETUNE_S3_ACCESS_KEY={layout.S3_ACCESS_KEY}")
    write(f"export FINETUNE_S3_SECRET_KEY={layout.S3_SECRET_KEY}")


def down(indexes: list[int]) -> None:
    for instance in layout.detached():
        if indexes and instance.index not in indexes:
            continue
        cluster.stop(instance)
        say(f"cluster {instance.index} stopped")
    guardian.sweep_abandoned()


def status() -> None:
    for instance in layout.detached():
        write(f"cluster {instance.index}: KUBECONFIG={instance.kubeconfig}")


def write(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    main()
