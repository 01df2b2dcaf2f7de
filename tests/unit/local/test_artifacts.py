"""URIs of a local run, and where they lead."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator.local.artifacts import local_folder, uri_in_claim
from finetune_operator.local.folders import JobFolder


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    folder = JobFolder.of(tmp_path, "team", "pig")
    folder.own_claim("own").mkdir(parents=True)
    return folder


@pytest.mark.parametrize("claim", ["own", "shared"])
def test_a_file_of_a_claim_is_known_by_the_claim_and_back(folder: JobFolder, claim: str) -> None:
    here = folder.claim(claim) / "a/b"
    assert uri_in_claim(f"file://{here}", folder) == f"pvc://{claim}/a/b"
    assert local_folder(f"pvc://{claim}/a/b", folder) == here


@pytest.mark.parametrize("uri", ["file:///elsewhere/a", "s3://bucket/a", "pvc://own/a"])
def test_other_uris_stay_as_they_are(folder: JobFolder, uri: str) -> None:
    assert uri_in_claim(uri, folder) == uri


def test_only_files_and_claims_are_here(folder: JobFolder) -> None:
    assert local_folder("file:///elsewhere/a", folder) == Path("/elsewhere/a")
    assert local_folder("s3://bucket/a", folder) is None
