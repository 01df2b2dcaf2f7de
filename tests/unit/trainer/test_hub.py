"""Datasets of the Hub through its own clients: configurations, splits, tokens, revisions, downloads that break."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.unit.trainer.conftest import pairs
from tests.unit.trainer.hub_server import TOKEN, HubServer, Repository, serving, sha

from finetune_trainer import prepare
from finetune_trainer.contract import PreparedData, RunConfig
from finetune_trainer.errors import InvalidConfig, InvalidData, NotFound, StageError
from finetune_trainer.workspace import Paths

Job = Callable[..., RunConfig]


def rows(count: int) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in pairs(count)).encode()


GSM8K = """---
configs:
- config_name: main
  data_files:
  - {split: train, path: main/train-*}
  - {split: test, path: main/test-*}
- config_name: socratic
  data_files:
  - {split: train, path: socratic/train-*}
---
"""
ULTRACHAT = """---
configs:
- config_name: default
  data_files:
  - {split: train_sft, path: data/train_sft-*}
  - {split: train_gen, path: data/train_gen-*}
---
"""
REPOSITORIES = {
    "team/gsm8k": Repository(
        {
            "main": {
                "README.md": GSM8K.encode(),
                "main/train-00000.jsonl": rows(11),
                "main/test-00000.jsonl": rows(3),
                "socratic/train-00000.jsonl": rows(7),
            }
        }
    ),
    "team/ultrachat": Repository(
        {
            "main": {
                "README.md": ULTRACHAT.encode(),
                "data/train_sft-00000.jsonl": rows(12),
                "data/train_sft-00001.jsonl": rows(1),
                "data/train_gen-00000.jsonl": rows(30),
            }
        }
    ),
    "team/private": Repository({"main": {"train.jsonl": rows(20)}, "v1": {"train.jsonl": rows(5)}}, private=True),
    "team/gated": Repository({"main": {"train.jsonl": rows(9)}}, gated=True),
    "team/plain": Repository(
        {
            "main": {
                "train.jsonl": rows(6),
                "test.jsonl": rows(2),
                ".gitattributes": b"",
                "dataset_infos.json": b'{"default": {"description": "", "features": {}}}',
                "plain.py": b"import gone",
            }
        }
    ),
    "team/archive": Repository({"main": {"train.arrow": b"ARROW1"}}),
}


@pytest.fixture
def hub(paths: Paths) -> Iterator[HubServer]:
    with serving() as server:
        server.repositories = REPOSITORIES
        for name, token in (("hub", TOKEN), ("wrong", "hf_wrong"), ("public", None)):
            folder = paths.secrets / name
            folder.mkdir()
            (folder / "HF_ENDPOINT").write_text(server.url)
            if token is not None:
                (folder / "HF_TOKEN").write_text(token)
        yield server


@pytest.fixture
def prepared(job: Job, paths: Paths, hub: HubServer) -> Callable[..., PreparedData]:
    def run(name: str, using: str = "public", **source: Any) -> PreparedData:
        dataset = {"uri": f"hf://team/{name}", "secret": using, **source}
        config = job(datasets=[dataset], training={"maxSequenceLength": 64, "peftConfig": {"r": 2}})
        found = prepare.run(config, paths, lambda _: None).prepared
        assert found is not None
        return found

    return run


Prepared = Callable[..., PreparedData]


def refused(kind: type[StageError], prepared: Prepared, name: str, **source: Any) -> StageError:
    with pytest.raises(kind) as refusal:
        prepared(name, **source)
    return refusal.value


def test_a_configuration_is_read_and_no_other_is_downloaded(prepared: Prepared, hub: HubServer) -> None:
    assert prepared("gsm8k", config="socratic").rows == 7
    assert [path for path, _ in hub.fetched] == ["README.md", "socratic/train-00000.jsonl"]
    assert prepared("gsm8k", config="main").rows == 11
    assert prepared("gsm8k", config="main", split="test").rows == 3


def test_several_configurations_are_refused_with_the_choices(prepared: Prepared, hub: HubServer) -> None:
    error = refused(InvalidData, prepared, "gsm8k")
    assert error.message == "`hf://team/gsm8k` has several configurations: main, socratic"
    assert (error.field, error.advice) == ("spec.datasets[0].config", "set it to one of them")
    assert [path for path, _ in hub.fetched] == ["README.md"]


def test_a_configuration_that_does_not_exist_is_refused_with_the_choices(prepared: Prepared) -> None:
    error = refused(InvalidData, prepared, "gsm8k", config="hard")
    assert error.message == "`hf://team/gsm8k` has no configuration `hard`: it has main, socratic"


def test_a_split_is_what_the_card_says_not_what_files_are_called(prepared: Prepared, hub: HubServer) -> None:
    assert prepared("ultrachat", split="train_sft").rows == 13
    assert not [path for path, _ in hub.fetched if "train_gen" in path]
    error = refused(InvalidData, prepared, "ultrachat")
    assert error.message == "`hf://team/ultrachat` has no split `train`: it has train_sft, train_gen"
    assert error.field == "spec.datasets[0].split"


def test_a_repository_without_a_card_is_divided_as_the_library_does(prepared: Prepared) -> None:
    assert prepared("plain").rows == 6
    assert prepared("plain", split="test").rows == 2


def test_a_file_of_a_repository_is_read_by_its_path(prepared: Prepared) -> None:
    assert prepared("gsm8k/main/test-00000.jsonl").rows == 3


def test_a_configuration_is_a_matter_of_whole_repositories(prepared: Prepared) -> None:
    error = refused(InvalidConfig, prepared, "gsm8k/main/test-00000.jsonl", config="main")
    assert error.field == "spec.datasets[0].config"


def test_files_that_nothing_reads_are_refused(prepared: Prepared) -> None:
    assert "cannot read `train.arrow`" in refused(InvalidData, prepared, "archive").message


def test_a_private_repository_needs_the_token(prepared: Prepared) -> None:
    assert prepared("private", using="hub").rows == 20
    error = refused(NotFound, prepared, "private")
    assert error.message == "dataset `hf://team/private` does not exist, or is private"


def test_a_bad_token_is_named_as_such(prepared: Prepared) -> None:
    error = refused(NotFound, prepared, "private", using="wrong")
    assert error.message == "access to dataset `hf://team/private` is denied"
    assert error.advice == "the Hub does not know the token in HF_TOKEN of the Secret `wrong`: set a valid one"


def test_a_gated_repository_says_what_to_do(prepared: Prepared) -> None:
    assert "accept the repository's terms" in str(refused(NotFound, prepared, "gated", using="hub").advice)


@pytest.mark.parametrize("revision", ["v1", sha("v1")])
def test_a_revision_is_a_branch_or_a_commit(prepared: Prepared, revision: str) -> None:
    assert prepared("private", using="hub", revision=revision).rows == 5


def test_a_revision_that_does_not_exist_is_named(prepared: Prepared) -> None:
    error = refused(NotFound, prepared, "private", using="hub", revision="v9")
    assert error.message == "dataset `hf://team/private` has no revision `v9`"


def test_a_download_that_breaks_goes_on_where_it_was(
    prepared: Prepared, hub: HubServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 64)
    hub.break_after["train.jsonl"] = 100
    assert prepared("private", using="hub").rows == 20
    assert hub.fetched == [("train.jsonl", None), ("train.jsonl", "bytes=64-")]


def test_two_splits_of_one_repository_are_two_datasets(job: Job, paths: Paths, hub: HubServer) -> None:
    source = {"uri": "hf://team/gsm8k", "secret": "public", "config": "main"}
    config = job(datasets=[source, {**source, "split": "test"}])
    found = prepare.run(config, paths, lambda _: None).prepared
    assert found is not None
    assert found.rows == 14
