"""Another job's checkpoints: found, compared, copied, and never touched."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.unit.trainer_runtime.conftest import Site
from tests.unit.trainer_runtime.test_checkpoint import Alone, facts, make, names, save
from tests.unit.trainer_runtime.test_launch import run_config
from tests.unit.trainer_runtime.test_training import stop_early, train_here

from finetune_trainer.contract import ExitCode, PreparedData, RunConfig, Stage
from finetune_trainer.errors import InvalidConfig, NotFound, StageError
from finetune_trainer.training import manifest
from finetune_trainer.training.manifest import FileDigest, Manifest
from finetune_trainer.training.resume import FIELD, adopt, agrees_on, planned_batch
from finetune_trainer.training.trained import run_digest
from finetune_trainer.workspace import Paths

PREPARED = {"format": "text", "rows": 2, "trainRows": 2, "evalRows": 0, "digest": "rows"}


def config_of(uri: str, prepared: dict[str, Any] | None = None, **changes: Any) -> RunConfig:
    return run_config(
        stage="train",
        prepared=prepared or PREPARED,
        checkpoints={"resumeFrom": {"uri": uri}},
        **changes,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@dataclass
class Case:
    """A source with checkpoints 4 and 9 of a job that had the same spec but for its epochs, and a job's workspace."""

    root: Path
    said: list[str] = field(default_factory=list)

    @property
    def source(self) -> Path:
        return self.root / "volumes" / "claim" / "job" / "checkpoints"

    @property
    def paths(self) -> Paths:
        return Paths(self.root / "w", self.root / "s", self.root / "secrets", self.root / "volumes")

    def write_source(self, step: int, config: RunConfig | None = None) -> Path:
        writer = config or config_of("file:///none", training={"trainerConfig": {"num_train_epochs": 9}})
        assert writer.prepared
        store = make(self.source, run=run_digest(writer))
        folder = store.partial(step)
        (folder / "weights").write_bytes(b"w" * step)
        store.seal(
            facts(step, run_digest(writer)).model_copy(
                update={"agrees_on": agrees_on(writer, writer.prepared), "global_batch": planned_batch(writer)}
            )
        )
        return self.source / f"checkpoint-{step}"

    def adopt(
        self, uri: str = "pvc://claim/job/checkpoints", config: RunConfig | None = None
    ) -> tuple[int, Path] | None:
        config = config or config_of(uri)
        before = contents(self.source) if self.source.is_dir() else {}
        run = run_digest(config)
        adopt(config, self.paths, Alone(), make(self.paths.checkpoints_dir, run=run), self.said.append)
        assert (contents(self.source) if self.source.is_dir() else {}) == before
        found = make(self.paths.checkpoints_dir, run=run).newest()
        return (found[1].step, found[0]) if found else None


@pytest.fixture
def case(tmp_path: Path) -> Case:
    made = Case(tmp_path)
    made.write_source(4)
    made.write_source(9)
    return made


@pytest.mark.parametrize(
    ("uri", "step"),
    [
        ("pvc://claim/job/checkpoints", 9),
        ("pvc://claim/job/checkpoints/", 9),
        ("pvc://claim/job/checkpoints/checkpoint-4", 4),
    ],
)
def test_the_newest_checkpoint_or_the_one_that_is_named_is_copied(case: Case, uri: str, step: int) -> None:
    found = case.adopt(uri)
    assert found
    assert found[0] == step
    assert (found[1] / "weights").read_bytes() == b"w" * step
    copied = manifest.verify(found[1]).facts
    assert copied.origin == f"pvc://claim/job/checkpoints/checkpoint-{step}"
    assert names(case.paths.checkpoints_dir) == [f"checkpoint-{step}"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "weights").unlink(),
        lambda folder: (folder / "weights").write_bytes(b"x" * 9),
        lambda folder: (folder / "manifest.json").write_text("{"),
    ],
    ids=["missing", "altered", "no manifest"],
)
def test_a_torn_checkpoint_is_named_and_an_older_one_taken(case: Case, damage: Any) -> None:
    damage(case.source / "checkpoint-9")
    found = case.adopt()
    assert found
    assert found[0] == 4
    assert any("skipped checkpoint-9" in line for line in case.said)


def test_a_manifest_that_names_files_elsewhere_is_torn(case: Case) -> None:
    folder = case.source / "checkpoint-9"
    sealed = manifest.read(folder)
    outside = FileDigest(path="../../job/checkpoints/checkpoint-4/weights", size=4, sha256="0")
    (folder / "manifest.json").write_text(Manifest(facts=sealed.facts, files=(outside,)).model_dump_json())
    found = case.adopt()
    assert found
    assert found[0] == 4


@pytest.mark.parametrize("uri", ["pvc://claim/job/other", "file:///nowhere/at/all", "pvc://unmounted/x"])
def test_a_source_without_checkpoints_is_not_found(case: Case, uri: str) -> None:
    with pytest.raises(NotFound) as caught:
        case.adopt(uri)
    assert caught.value.field == FIELD
    assert uri in caught.value.message


def test_a_source_whose_checkpoints_are_all_torn_is_not_found(case: Case) -> None:
    for step in (4, 9):
        (case.source / f"checkpoint-{step}" / "weights").unlink()
    with pytest.raises(NotFound, match="no checkpoint that is whole"):
        case.adopt()
    assert len([line for line in case.said if "weights is missing" in line]) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prepared": {**PREPARED, "digest": "others"}}, "trained on other rows"),
        ({"model": {"uri": "hf://a/b"}}, 'spec.model.uri is "file:///m" there and "hf://a/b" here'),
        ({"training": {"method": "full"}}, 'spec.training.method is "lora" there and "full" here'),
        ({"training": {"peftConfig": {"r": 8}}}, 'spec.training.peftConfig is {} there and {"r": 8} here'),
        ({"training": {"packing": True}}, "spec.training.packing is false there and 1024 here"),
        ({"training": {"trainerConfig": {"seed": 7}}}, "spec.training.trainerConfig.seed is null there and 7 here"),
        ({"training": {"trainerConfig": {"optim": "sgd"}}}, "trainerConfig.optim is null there"),
    ],
)
def test_a_job_that_trains_something_else_is_refused_and_told_what_differs(
    case: Case, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidConfig) as caught:
        case.adopt(config=config_of("pvc://claim/job/checkpoints", **changes))
    assert words in caught.value.message
    assert caught.value.field == FIELD
    assert caught.value.advice
    assert "remove resumeFrom" in caught.value.advice
    assert names(case.paths.checkpoints_dir) == []


@pytest.mark.parametrize("changes", [{"per_device_train_batch_size": 2}, {"gradient_accumulation_steps": 3}])
def test_a_job_with_other_rows_a_step_is_refused_before_a_gpu_is_taken(case: Case, changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidConfig, match="rows a step") as caught:
        case.adopt(config=config_of("pvc://claim/job/checkpoints", training={"trainerConfig": changes}))
    assert "remove resumeFrom" in (caught.value.advice or "")


def test_the_same_rows_a_step_in_other_micro_batches_go_on(case: Case) -> None:
    halves = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    assert case.adopt(config=config_of("pvc://claim/job/checkpoints", training={"trainerConfig": halves}))


@pytest.mark.parametrize("changes", [{"learning_rate": 1e-5}, {"num_train_epochs": 1}, {"weight_decay": 0.1}])
def test_a_job_may_go_on_with_a_schedule_of_its_own(case: Case, changes: dict[str, Any]) -> None:
    config = config_of("pvc://claim/job/checkpoints", training={"trainerConfig": changes})
    assert case.adopt(config=config)


def test_a_checkpoint_that_does_not_say_what_it_was_made_from_serves_only_the_same_configuration(case: Case) -> None:
    same = config_of("pvc://claim/job/checkpoints")
    shutil.rmtree(case.source)
    save(make(case.source, run="run"), 3)
    with pytest.raises(InvalidConfig, match="does not say what it was made from"):
        case.adopt(config=same)
    shutil.rmtree(case.source)
    store = make(case.source, run=run_digest(same))
    (store.partial(3) / "weights").write_bytes(b"www")
    store.seal(facts(3, run_digest(same)).model_copy(update={"global_batch": planned_batch(same)}))
    found = case.adopt(config=same)
    assert found
    assert found[0] == 3


class OtherPod(Alone):
    """The first rank of a second pod, which is told what rank 0 has found."""

    is_main_process = False

    def __init__(self, first: Any) -> None:
        self._first = first

    def gather(self, mine: Any) -> list[Any]:
        return [self._first, mine]


class FirstPod(Alone):
    told: Any = None

    def gather(self, mine: Any) -> list[Any]:
        self.told = self.told or mine
        return [mine]


def test_a_pod_with_a_workspace_of_its_own_copies_the_same_checkpoint(case: Case, tmp_path: Path) -> None:
    config = config_of("pvc://claim/job/checkpoints")
    run, first = run_digest(config), FirstPod()
    adopt(config, case.paths, first, make(case.paths.checkpoints_dir, run=run), case.said.append)
    case.write_source(11)

    for workspace in (tmp_path / "second", case.paths.workspace):
        copy = workspace / "checkpoints"
        before = (copy / "checkpoint-9").stat().st_ino if copy.exists() else None
        adopt(config, case.paths, OtherPod(first.told), make(copy, run=run), case.said.append)
        assert names(copy) == ["checkpoint-9"]
        assert before in (None, (copy / "checkpoint-9").stat().st_ino)


def test_what_the_operator_writes_about_resuming_is_read(case: Case) -> None:
    config = config_of("s3://b/k")
    assert RunConfig.model_validate(json.loads(config.to_json())) == config


def second_job(site: Site, root: Path, uri: str, **changes: Any) -> Site:
    """A job that has been prepared, with a workspace of its own."""
    other = site.fresh(root)
    for name in ("checkpoints", "trained", "trained.json"):
        found = root / "workspace" / name
        if found.exists():
            shutil.rmtree(found) if found.is_dir() else found.unlink()
    policy = {"everySteps": 4, "resumeFrom": {"uri": uri}}
    return other.but(job={"name": "second", "namespace": "tests", "uid": "1"}, checkpoints=policy, **changes)


def weights(site: Site) -> bytes:
    return (site.paths().trained_dir / "adapter_model.safetensors").read_bytes()


@pytest.mark.slow
def test_a_second_job_goes_on_from_the_first_ones_checkpoint_to_the_very_same_weights(
    site: Site, tmp_path: Path
) -> None:
    whole = train_here(site)
    first = site.fresh(tmp_path / "first")
    for name in ("checkpoints", "trained"):
        shutil.rmtree(first.root / "workspace" / name)
    stop_early(first)
    source = first.paths().checkpoints_dir
    before = contents(source)

    second = second_job(first, tmp_path / "second", source.as_uri())
    result = train_here(second)

    assert (result.exit_code, result.resumed_from_step) == (ExitCode.OK, 1)
    assert whole.trained
    assert result.trained
    assert (result.trained.loss, result.trained.base_eval_loss) == (whole.trained.loss, whole.trained.base_eval_loss)
    assert weights(second) == weights(site)
    assert contents(source) == before


@pytest.mark.slow
def test_a_second_jobs_own_learning_rate_applies(site: Site, tmp_path: Path) -> None:
    stop_early(site)
    uri = site.paths().checkpoints_dir.as_uri()
    slower = {**site.config.training.trainer_config, "learning_rate": 1e-9, "weight_decay": 0.0}

    second = second_job(site, tmp_path / "second", uri, training={"trainerConfig": slower})
    result = train_here(second)

    assert (result.exit_code, result.resumed_from_step) == (ExitCode.OK, 1)
    from safetensors.torch import load_file  # noqa: PLC0415 - imports torch

    start = load_file(site.paths().checkpoints_dir / "checkpoint-1" / "adapter_model.safetensors")
    end = load_file(second.paths().trained_dir / "adapter_model.safetensors")
    assert max(float((end[name] - start[name]).abs().max()) for name in start) < 1e-6


@pytest.mark.slow
def test_a_checkpoint_with_more_steps_than_the_job_has_is_refused(site: Site, tmp_path: Path) -> None:
    train_here(site)
    uri = site.paths().checkpoints_dir.as_uri()
    shorter = {**site.config.training.trainer_config, "num_train_epochs": 1}

    result = train_here(second_job(site, tmp_path / "second", uri, training={"trainerConfig": shorter}))

    assert result.exit_code is ExitCode.INVALID_CONFIG
    assert "it has done 24 steps, this job has 12" in result.message


@pytest.mark.slow
def test_parameters_of_another_shape_are_refused(site: Site, tmp_path: Path) -> None:
    stop_early(site)
    folder = site.paths().checkpoints_dir / "checkpoint-1"
    sealed = manifest.read(folder)
    manifest.write(folder, Manifest(facts=sealed.facts.model_copy(update={"shapes": "0"}), files=sealed.files))

    result = train_here(second_job(site, tmp_path / "second", folder.as_uri()))

    assert (result.exit_code, result.field) == (ExitCode.INVALID_CONFIG, FIELD)
    assert "other names or shapes" in result.message


@pytest.mark.slow
def test_prepare_finds_out_before_any_gpu_is_taken(site: Site, tmp_path: Path) -> None:
    from finetune_trainer import prepare  # noqa: PLC0415 - slow to import

    stop_early(site)
    uri = site.paths().checkpoints_dir.as_uri()
    fewer = tmp_path / "fewer.jsonl"
    rows = Path(site.config.datasets[0].uri.removeprefix("file://")).read_text().splitlines(keepends=True)
    fewer.write_text("".join(rows[:40]))

    def prepared(uri: str, root: Path, **changes: Any) -> PreparedData | StageError | None:
        job = second_job(site, root, uri, stage=Stage.PREPARE, **changes)
        shutil.rmtree(root / "workspace" / "dataset")
        try:
            return prepare.run(job.config, job.paths(), lambda _: None).prepared
        except StageError as error:
            return error

    good = prepared(uri, tmp_path / "good")
    other = prepared(uri, tmp_path / "other", datasets=[{"uri": fewer.as_uri()}])
    nothing = prepared(f"file://{tmp_path}/nothing", tmp_path / "nothing-there")

    assert isinstance(good, PreparedData)
    assert isinstance(other, InvalidConfig)
    assert "other rows" in other.message
    assert isinstance(nothing, NotFound)
