from __future__ import annotations

from pathlib import Path

import pytest
from tests.golden import job_lives
from tests.golden.cases import CASES, expected


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_job_becomes_the_manifests_that_were_reviewed(case: Path) -> None:
    found = {path.name: path.read_text(encoding="utf-8") for path in (case / "expected").iterdir()}
    assert expected(case) == found, "review the change, then run `make golden`"


@pytest.mark.parametrize("name", job_lives.LIVES)
def test_a_job_lives_as_it_was_reviewed(name: str) -> None:
    found = (job_lives.FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    assert job_lives.told(name) == found, "review the change, then run `make golden`"
