from __future__ import annotations

from pathlib import Path

import pytest

from finetune_trainer.contract import CheckpointPolicy, Stage
from finetune_trainer.errors import Interrupted
from finetune_trainer.pod.report import Reporter

pytest.importorskip("transformers")

from transformers import TrainerControl, TrainerState, TrainingArguments

from finetune_trainer.training.callbacks import ProgressCallback, StopAndSave
from finetune_trainer.training.gang import Gang

ARGS = TrainingArguments(output_dir="unused", use_cpu=True)
ALONE = Gang(rank=0, local_rank=0, size=1)


def test_a_stop_file_saves_logs_and_ends_without_evaluating(tmp_path: Path) -> None:
    stop = StopAndSave(ALONE, tmp_path / "stop", None)
    control = TrainerControl(should_evaluate=True)

    stop.on_step_end(ARGS, TrainerState(), control)
    assert (control.should_training_stop, control.should_save) == (False, False)
    (tmp_path / "stop").touch()
    stop.on_step_end(ARGS, TrainerState(), control)

    assert (control.should_training_stop, control.should_save, control.should_log) == (True, True, True)
    assert not control.should_evaluate
    assert stop.stopping


def test_a_stop_file_ends_an_evaluation(tmp_path: Path) -> None:
    stop = StopAndSave(ALONE, tmp_path / "stop", None)
    (tmp_path / "stop").touch()

    def evaluate() -> None:
        for _ in range(100):
            stop.on_prediction_step(ARGS, TrainerState(), TrainerControl())

    with pytest.raises(Interrupted):
        evaluate()


@pytest.mark.parametrize(
    ("policy", "seconds"), [({}, 900), ({"every_seconds": 60}, 60), ({"every_steps": 10}, None)], ids=str
)
def test_a_job_that_does_not_say_how_often_loses_a_quarter_of_an_hour_at_most(
    policy: dict[str, int], seconds: int | None
) -> None:
    assert CheckpointPolicy(**policy).longest_seconds == seconds


def test_time_saves_once_it_is_up(tmp_path: Path) -> None:
    control = TrainerControl()
    StopAndSave(ALONE, tmp_path / "stop", 3600).on_step_end(ARGS, TrainerState(), control)
    assert not control.should_save
    StopAndSave(ALONE, tmp_path / "stop", 0).on_step_end(ARGS, TrainerState(), control)
    assert control.should_save


def test_an_evaluation_before_the_first_step_is_the_base_models(tmp_path: Path) -> None:
    reporter = Reporter(Stage.TRAIN, tmp_path / "progress.json")
    progress = ProgressCallback(reporter, lambda: (), None)
    control = TrainerControl()

    progress.on_evaluate(ARGS, TrainerState(global_step=0, max_steps=8), control, metrics={"eval_loss": 4.0})
    progress.on_evaluate(ARGS, TrainerState(global_step=4, max_steps=8), control, metrics={"eval_loss": 2.0})

    assert (reporter.progress.base_eval_loss, reporter.progress.eval_loss) == (4.0, 2.0)
    assert (reporter.progress.step, reporter.progress.total_steps) == (4, 8)


def test_progress_is_not_written_at_every_step(tmp_path: Path) -> None:
    file = tmp_path / "progress.json"
    progress = ProgressCallback(Reporter(Stage.TRAIN, file), lambda: (), None)
    progress.on_train_begin(ARGS, TrainerState(global_step=0, max_steps=8), TrainerControl())
    first = file.read_bytes()

    progress.on_step_end(ARGS, TrainerState(global_step=1, max_steps=8), TrainerControl())
    progress.on_log(ARGS, TrainerState(global_step=1, max_steps=8), TrainerControl(), logs={"loss": 1.0})

    assert file.read_bytes() == first
    assert progress.loss == 1.0
