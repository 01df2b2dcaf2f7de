"""Mutation testing of `plan/` and `cluster/`: each mutant is one small fault, and a test has to fail for it.

`python -m tools.mutants` tries them all with mutmut, `--sample 200` a seeded sample, `--survivors` those that survived
last time, `--rest` those without a result, as after a run that was interrupted, and patterns those they name
(`finetune_operator.cluster.jobs.*`). The exit status says whether enough died.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import multiprocessing
import os
import random
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import hypothesis
import pytest
from mutmut.__main__ import create_mutants
from mutmut.mutation.data import SourceFileMutationData
from mutmut.mutation.diff_apply import get_diff_for_mutant
from mutmut.stats import status_by_exit_code
from mutmut.utils.file_utils import copy_also_copy_files, copy_src_dir, setup_source_paths, walk_mutatable_files

from tools.mutant_trials import Trials

ROOT: Final = Path(__file__).parents[1]
WORKSPACE: Final = ROOT / ".mutants"
"""mutmut takes a file's path for its module's name, so that it is given the package at the root of a folder."""

LINKS: Final = {
    "finetune_operator": "operator/finetune_operator",
    "tests": "tests",
    "pyproject.toml": "pyproject.toml",
}
TESTS: Final = {
    "plan": (
        *("tests/unit/plan", "tests/golden", "tests/contract"),
        # It covers everything, and takes seconds for each mutant that survives: what only it finds counts as survived.
        "--deselect=tests/unit/plan/test_invariants.py::TestAnyLife",
    ),
    "cluster": ("tests/unit/cluster",),
}
"""The tests that are to notice what is broken in a package."""
PYTEST: Final = (
    # A native traceback is made without parsing the mutated file, which is fifty times as long as its source.
    *("--rootdir=.", "--tb=native", "-s", "-p", "no:cacheprovider", "--hypothesis-profile=mutants"),
    *("-o", "timeout=0"),  # its timer is used for the mutants
)
PROGRESS_EVERY: Final = 200
ENOUGH: Final = 90.0
KILLED: Final = frozenset({"killed", "timeout"})
UNTRIED: Final = frozenset({"not checked", "skipped"})
UNDECIDED: Final = "suspicious"
SURVIVORS: Final = "survivors.diff"


@dataclass(frozen=True)
class Mutant:
    name: str
    path: Path
    status: str

    @property
    def is_killed(self) -> bool:
        return self.status in KILLED

    @property
    def has_survived(self) -> bool:
        return not self.is_killed and self.status not in UNTRIED

    @property
    def package(self) -> str:
        return self.path.parts[1]


def main() -> int:
    arguments = _arguments()
    _enter()
    chosen = set(_chosen(list(_mutants()), arguments))
    for package, tests in TESTS.items():
        of_package = [mutant for mutant in _mutants() if mutant.package == package and mutant.name in chosen]
        to_try = {each.name for each in of_package if each.status in {*UNTRIED, UNDECIDED} or not arguments.rest}
        if to_try:
            _try(to_try, tests, arguments.processes)
    tried = [mutant for mutant in _mutants() if mutant.name in chosen]
    survivors = [mutant for mutant in tried if not mutant.is_killed]
    with Path(SURVIVORS).open("w") as out:
        out.writelines(f"{get_diff_for_mutant(each.name, path=each.path)}\n" for each in survivors)
    lines = [*_table(tried), f"The survivors as differences: {WORKSPACE.name}/{SURVIVORS}"]
    sys.stdout.write("\n".join(lines) + "\n")
    return 0 if all(share >= ENOUGH for share in _shares(tried).values()) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tools.mutants", description=__doc__)
    parser.add_argument("patterns", nargs="*", help="names of mutants, with wildcards")
    parser.add_argument("--sample", type=int, help="try only so many of them")
    parser.add_argument("--seed", type=int, default=0, help="of the sample")
    parser.add_argument("--survivors", action="store_true", help="try again what survived the last run")
    parser.add_argument("--rest", action="store_true", help="try what has no result yet; count them all")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def _enter() -> None:
    """Into the workspace, with the mutants of every file that is newer than its mutants."""
    shutil.rmtree(WORKSPACE / "mutants" / "tests", ignore_errors=True)
    (WORKSPACE / "mutants").mkdir(parents=True, exist_ok=True)
    for name, target in LINKS.items():
        link = WORKSPACE / name
        link.unlink(missing_ok=True)
        link.symlink_to(ROOT / target)
    os.chdir(WORKSPACE)
    for data in (WORKSPACE / "mutants" / "finetune_operator").rglob("*.yaml"):
        data.unlink()  # what is there is not copied again
    with contextlib.redirect_stdout(None):
        copy_src_dir()
        copy_also_copy_files()
        create_mutants(max_children=1)


def _chosen(mutants: list[Mutant], arguments: argparse.Namespace) -> list[str]:
    names = sorted(each.name for each in mutants if each.has_survived or not arguments.survivors)
    if arguments.patterns:
        names = [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in arguments.patterns)]
    if arguments.sample and arguments.sample < len(names):
        names = random.Random(arguments.seed).sample(names, arguments.sample)  # noqa: S311 - no secret
    if not names:
        sys.exit("No mutant has such a name.")
    return names


def _try(chosen: set[str], tests: tuple[str, ...], processes: int) -> None:
    """In a process of its own, which has imported nothing that is mutated."""
    run = multiprocessing.get_context("fork").Process(target=_run, args=(chosen, tests, processes))
    run.start()
    run.join()
    if run.exitcode:
        sys.exit("The tests fail without a mutant: see above")


def _run(chosen: set[str], tests: tuple[str, ...], processes: int) -> None:
    files: dict[str, SourceFileMutationData] = {}
    for each in _files():
        each.meta_path = each.meta_path.absolute()
        files |= dict.fromkeys(each.exit_code_by_key, each)
    codes: dict[str, int] = {}

    def settle(name: str, code: int) -> None:
        files[name].exit_code_by_key[name] = code
        files[name].save()
        codes[name] = code
        if len(codes) % PROGRESS_EVERY == 0:
            killed = sum(status_by_exit_code[code] in KILLED for code in codes.values())
            sys.stdout.write(f"{len(codes)} of {len(chosen)} tried, {killed} killed\n")
            sys.stdout.flush()

    # Nobody reads which example is the smallest, and on a busy machine none is found too slow.
    hypothesis.settings.register_profile(
        "mutants",
        derandomize=True,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate],
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    setup_source_paths()
    os.chdir("mutants")
    # In an order of their own, so that a run that is interrupted is a sample of them.
    order = random.Random(0).sample(sorted(chosen), len(chosen))  # noqa: S311 - no secret
    trials = Trials(order, processes, settle)
    sys.exit(pytest.main([*PYTEST, *tests], plugins=[trials]))


def _files() -> Iterator[SourceFileMutationData]:
    for path in walk_mutatable_files():
        found = SourceFileMutationData(path=path)
        found.load()
        yield found


def _mutants() -> Iterator[Mutant]:
    for each in _files():
        for name, code in each.exit_code_by_key.items():
            yield Mutant(name, Path(each.path), status_by_exit_code[code])


def _table(mutants: Iterable[Mutant]) -> Iterator[str]:
    by_file: dict[str, Counter[bool]] = {}
    for mutant in mutants:
        for row in ("total", f"{mutant.package}/", str(Path(*mutant.path.parts[1:]))):
            by_file.setdefault(row, Counter())[mutant.is_killed] += 1
    width = max(map(len, by_file), default=0)
    yield f"{'':<{width}}   killed survived  percent"
    for row, count in sorted(by_file.items(), key=lambda item: (item[0] == "total", item[0])):
        yield f"{row:<{width}}   {count[True]:6} {count[False]:8} {_percent(count):7.1f}%"


def _shares(mutants: Iterable[Mutant]) -> dict[str, float]:
    counts: dict[str, Counter[bool]] = {}
    for mutant in mutants:
        counts.setdefault(mutant.package, Counter())[mutant.is_killed] += 1
    return {package: _percent(count) for package, count in counts.items()}


def _percent(count: Counter[bool]) -> float:
    return 100 * count[True] / count.total()


if __name__ == "__main__":
    sys.exit(main())
