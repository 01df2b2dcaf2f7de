"""What the machine has."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.local import machine


@pytest.mark.parametrize(("value", "expected"), [("", ()), ("-1", ()), ("0,2", ("0", "2")), ("GPU-abc", ("GPU-abc",))])
def test_the_users_choice_of_gpus_counts(value: str, expected: tuple[str, ...]) -> None:
    assert machine.gpus({"CUDA_VISIBLE_DEVICES": value}) == expected


def test_gpus_are_counted_by_nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200 (UUID: GPU-1)'\necho 'GPU 1: NVIDIA H200 (UUID: GPU-2)'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert machine.gpus({}) == ("0", "1")


def test_threads_are_those_that_the_shell_allows_else_the_cpus() -> None:
    assert machine.threads({"OMP_NUM_THREADS": "3"}) == 3
    assert machine.threads({"OMP_NUM_THREADS": "many"}) == machine.threads({}) >= 1
