"""Where a local run keeps things."""

from __future__ import annotations

from pathlib import Path

from finetune_operator.local.folders import JobFolder


def test_a_claim_is_where_it_was_made_for_a_job_of_the_namespace(tmp_path: Path) -> None:
    folder = JobFolder.of(tmp_path, "team", "second")
    made_for_the_first = folder.neighbour("first").own_claim("first-workspace")
    made_for_the_first.mkdir(parents=True)
    assert folder.claim("first-workspace") == made_for_the_first
    elsewhere = JobFolder.of(tmp_path, "other", "second")
    assert elsewhere.claim("first-workspace") == tmp_path / "other/_volumes/first-workspace"


def test_a_jobs_own_claim_comes_before_its_neighbours(tmp_path: Path) -> None:
    folder = JobFolder.of(tmp_path, "team", "second")
    for job in (folder, folder.neighbour("first")):
        job.own_claim("data").mkdir(parents=True)
    assert folder.claim("data") == folder.own_claim("data")


def test_a_folder_in_a_shared_claim_is_no_claim(tmp_path: Path) -> None:
    folder = JobFolder.of(tmp_path, "team", "pig")
    (folder.claim("volumes") / "data").mkdir(parents=True)
    assert folder.claim("data") == tmp_path / "team/_volumes/data"
