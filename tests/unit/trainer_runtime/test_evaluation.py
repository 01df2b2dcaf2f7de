"""The loss of an evaluation does not depend on how the rows fall into batches."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from tests.tiny_model import write as tiny_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from finetune_trainer.training.evaluation import TokenWeightedLoss, own_rows

LENGTHS = [40, 3, 2, 25, 4, 2, 30]


class Trainer(TokenWeightedLoss, SFTTrainer):  # type: ignore[misc] # trl has no types
    pass


def row(length: int) -> dict[str, list[int]]:
    ids = [(7 * length + place) % 50 + 5 for place in range(length + 2)]
    return {"input_ids": ids, "labels": [-100, -100, *ids[2:]]}


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_model(folder)
    return folder


def evaluated(folder: Path, output: Path, batch: int) -> float:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    rows = Dataset.from_list([row(length) for length in LENGTHS])
    config = SFTConfig(
        output_dir=str(output), use_cpu=True, bf16=False, report_to="none", per_device_eval_batch_size=batch
    )
    tokenizer = AutoTokenizer.from_pretrained(folder)
    trainer = Trainer(model=model, args=config, train_dataset=rows, eval_dataset=rows, processing_class=tokenizer)
    return float(trainer.evaluate()["eval_loss"])


def by_hand(folder: Path) -> float:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    losses, tokens = 0.0, 0
    for length in LENGTHS:
        found = {name: torch.tensor([value]) for name, value in row(length).items()}
        with torch.no_grad():
            losses += float(model(**found).loss) * length
        tokens += length
    return losses / tokens


@pytest.mark.parametrize("batch", [1, 2, 4, 8])
def test_the_loss_is_the_mean_over_all_tokens_whatever_the_batches(
    model_folder: Path, tmp_path: Path, batch: int
) -> None:
    assert evaluated(model_folder, tmp_path, batch) == pytest.approx(by_hand(model_folder), rel=1e-5)


@pytest.mark.parametrize(("rank", "own"), [(0, 4), (1, 1), (2, 0)])
def test_rows_that_fill_up_the_last_batch_do_not_count(rank: int, own: int) -> None:
    state = SimpleNamespace(end_of_dataloader=True, remainder=5)
    accelerator = SimpleNamespace(gradient_state=state, process_index=rank)
    assert own_rows(accelerator, rows=4, batch=4) == own
    assert own_rows(accelerator, rows=1, batch=4) == 1
    state.end_of_dataloader = False
    assert own_rows(accelerator, rows=4, batch=4) == 4
