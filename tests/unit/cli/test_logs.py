"""Logs of a local run."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.unit.cli.invoke import finetune

from finetune_operator.cli.log_lines import readable


@pytest.fixture
def state(tmp_path: Path) -> Path:
    logs = tmp_path / ".finetune/default/pig/logs"
    logs.mkdir(parents=True)
    (logs / "prepare-0.log").write_text("=== pig-prepare-0 t\nready\n")
    (logs / "train-0.log").write_text("=== pig-train-0-a t\nfirst try\n=== pig-train-0-b t\nsecond try\n")
    (logs / "train-1.log").write_text("=== pig-train-1-a t\nfirst too\n=== pig-train-1-b t\nother rank\n")
    return tmp_path


def test_the_newest_attempt_of_the_newest_stage_is_shown(state: Path) -> None:
    assert finetune("logs", "pig", cwd=state).stdout == "[train-0] second try\n[train-1] other rank\n"


def test_one_stage_and_rank_stands_alone(state: Path) -> None:
    assert finetune("logs", "pig", "--stage", "train", "--rank", "1", cwd=state).stdout == "other rank\n"
    assert finetune("logs", "pig", "--stage", "prepare", cwd=state).stdout == "ready\n"


def test_the_attempt_before_can_be_seen(state: Path) -> None:
    assert finetune("logs", "pig", "--rank", "0", "--stage", "train", "-p", cwd=state).stdout == "first try\n"
    none = finetune("logs", "pig", "--stage", "prepare", "-p", cwd=state)
    assert (none.returncode, "no attempt before" in none.stderr) == (66, True)


def test_save_writes_every_stage_rank_and_attempt_to_one_file(state: Path) -> None:
    assert finetune("logs", "pig", "--save", "all.log", cwd=state).stdout == "wrote 3 logs to all.log\n"
    text = (state / "all.log").read_text()
    assert all(words in text for words in ("ready", "first try", "second try", "other rank", "==> train-1 <=="))


def test_an_unknown_stage_is_refused_with_those_that_there_are(state: Path) -> None:
    done = finetune("logs", "pig", "--stage", "fit", cwd=state)
    assert (done.returncode, "prepare, train, publish" in done.stderr) == (64, True)


def test_a_state_dir_without_that_job_says_so(state: Path) -> None:
    done = finetune("logs", "cow", "--state-dir", ".finetune", cwd=state)
    assert (done.returncode, "no logs of cow" in done.stderr) == (66, True)


def test_structured_lines_are_words_on_a_terminal() -> None:
    line = (
        '{"event": "saved", "step": 5, "field": null, "level": "info", "timestamp": "2026-01-01T12:00:01Z", "job": "x"}'
    )
    assert readable(line) == "12:00:01 saved step=5"
    assert readable(line.replace('"info"', '"error"')) == "12:00:01 ERROR saved step=5"
    assert readable("Traceback: {") == "Traceback: {"
    assert readable("[1, 2]") == "[1, 2]"
