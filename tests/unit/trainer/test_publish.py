"""The publish stage on a tiny model: what leaves has been loaded from disk and has answered."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from finetune_trainer import publish
from finetune_trainer.adaptations.lora import Lora
from finetune_trainer.checksums import text_sha256
from finetune_trainer.contract import MAX_RESULT_BYTES, ExitCode, Published, Result, RunConfig, Stage
from finetune_trainer.errors import Internal, InvalidData
from finetune_trainer.training.manifest import digest_of
from finetune_trainer.uris import Address
from finetune_trainer.uris.folder import open_folder
from finetune_trainer.uris.transfer import upload
from finetune_trainer.workspace import Paths

Job = Callable[..., RunConfig]
PROMPTS = ["the quick fox", "an old bridge"]


def trained(paths: Paths) -> dict[str, Any]:
    counts = {"step": 3, "totalSteps": 3, "epoch": 1.0, "trainableParameters": 10, "totalParameters": 100}
    return {**counts, "digest": digest_of(paths.trained_dir), "evalLoss": 0.5, "baseEvalLoss": 2.0}


def config_of(job: Job, paths: Paths, **changes: Any) -> RunConfig:
    prepared = {"format": "text", "rows": 4, "trainRows": 3, "evalRows": 1, "digest": "d" * 64}
    plain = {"stage": "publish", "prepared": prepared, "trained": trained(paths), "samples": PROMPTS}
    return job(**{**plain, **changes})


def published(config: RunConfig, paths: Paths) -> Published:
    found = publish.run(config, paths, lambda _: None).published
    assert found is not None
    return found


@pytest.fixture
def adapter(job: Job, paths: Paths, model_folder: Path) -> Path:
    """An adapter that changes what the model says."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    model = peft.get_peft_model(model, Lora().peft_config(job().training))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=1.0)
    model.save_pretrained(paths.trained_dir)
    return paths.trained_dir


def test_the_artifact_loads_with_peft_and_gives_the_answers_that_were_shown(
    job: Job, paths: Paths, adapter: Path, tmp_path: Path, model_folder: Path
) -> None:
    found = published(config_of(job, paths), paths)
    base = AutoModelForCausalLM.from_pretrained(model_folder)
    model = peft.PeftModel.from_pretrained(base, tmp_path / "output")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "output")
    for sample in found.samples:
        chat = [{"role": "user", "content": sample.prompt}]
        asked = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        out = model.generate(**asked, max_new_tokens=64, do_sample=False)[0, asked["input_ids"].shape[1] :]
        assert tokenizer.decode(out, skip_special_tokens=True).strip() == sample.after
        assert sample.before != sample.after
    assert [sample.prompt for sample in found.samples] == PROMPTS


def test_checksums_cover_every_file_and_the_result_names_them(
    job: Job, paths: Paths, adapter: Path, tmp_path: Path
) -> None:
    found = published(config_of(job, paths), paths)
    output = tmp_path / "output"
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=output, check=True, capture_output=True)
    listed = {line.split("  ")[1] for line in (output / "SHA256SUMS").read_text().splitlines()}
    assert listed == {file.name for file in output.iterdir()} - {"SHA256SUMS"}
    assert {"README.md", "samples.json", "run.json", "adapter_model.safetensors", "tokenizer.json"} <= listed
    whole, card = found.artifacts
    assert (whole.kind, whole.uri) == ("adapter", f"file://{output}")
    assert whole.sha256 == text_sha256((output / "SHA256SUMS").read_text())
    assert whole.bytes == sum((output / name).stat().st_size for name in listed)
    assert (card.kind, card.uri) == ("report", f"file://{output}/README.md")


def test_the_artifact_names_its_base_model_and_tells_its_story(
    job: Job, paths: Paths, adapter: Path, tmp_path: Path, model_folder: Path
) -> None:
    config = config_of(job, paths)
    published(config, paths)
    named = json.loads((tmp_path / "output" / "adapter_config.json").read_text())
    assert named["base_model_name_or_path"] == f"file://{model_folder}"
    card = (tmp_path / "output" / "README.md").read_text()
    assert "| Held-out loss | 0.5000 (base model 2.0000) |" in card
    assert "> the quick fox" in card
    assert RunConfig.model_validate_json((tmp_path / "output" / "run.json").read_text()) == config


def test_publishing_again_writes_nothing_and_tells_the_same(
    job: Job, paths: Paths, adapter: Path, tmp_path: Path
) -> None:
    config = config_of(job, paths)
    first = published(config, paths)
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "output").iterdir()}
    shutil.rmtree(paths.trained_dir)
    assert published(config, paths) == first
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "output").iterdir()} == times


def test_a_torn_artifact_is_published_again(job: Job, paths: Paths, adapter: Path, tmp_path: Path) -> None:
    config = config_of(job, paths)
    first = published(config, paths)
    (tmp_path / "output" / "adapter_model.safetensors").write_bytes(b"torn")
    assert published(config, paths) == first
    assert load_file(tmp_path / "output" / "adapter_model.safetensors")


def test_a_whole_model_is_published_as_one(job: Job, paths: Paths, model_folder: Path, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(model_folder)
    torch.nn.init.normal_(model.lm_head.weight)
    model.save_pretrained(paths.trained_dir)
    found = published(config_of(job, paths, training={"method": "full"}), paths)
    assert found.artifacts[0].kind == "model"
    assert found.samples[0].before != found.samples[0].after
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "output").config.hidden_size == 16


def test_weights_that_the_train_stage_did_not_save_are_refused(job: Job, paths: Paths, adapter: Path) -> None:
    config = config_of(job, paths)
    (adapter / "adapter_model.safetensors").write_bytes(b"another job's")
    with pytest.raises(InvalidData, match="digest differs"):
        publish.run(config, paths, lambda _: None)


@pytest.mark.parametrize("damage", ["torn", "nan", "incomplete"])
def test_an_adapter_that_does_not_work_is_not_published(
    job: Job, paths: Paths, adapter: Path, tmp_path: Path, damage: str
) -> None:
    file = adapter / "adapter_model.safetensors"
    tensors = load_file(file)
    first = min(tensors)
    match damage:
        case "torn":
            file.write_bytes(file.read_bytes()[:-100])
        case "nan":
            save_file({**tensors, first: tensors[first] * torch.nan}, file)
        case "incomplete":
            save_file({name: tensor for name, tensor in tensors.items() if name != first}, file)
    with pytest.raises(Internal):
        publish.run(config_of(job, paths), paths, lambda _: None)
    assert not (tmp_path / "output" / "SHA256SUMS").exists()


def test_weights_are_taken_from_the_handover_and_it_is_cleared_afterwards(
    job: Job, paths: Paths, adapter: Path, tmp_path: Path
) -> None:
    uri = f"file://{tmp_path}/handover"
    config = config_of(job, paths, workspace={"persistent": False, "handoverUri": uri})
    upload(adapter, open_folder(Address(uri, "spec.workspace", "output"), paths), lambda _: None)
    shutil.rmtree(adapter)
    assert published(config, paths).samples
    assert not list((tmp_path / "handover").rglob("*"))
    assert published(config, paths).samples  # a second try finds no handover, and needs none


def test_samples_are_cut_to_what_a_termination_message_holds(
    job: Job, paths: Paths, adapter: Path, tmp_path: Path
) -> None:
    prompts = [f"prompt {number} " + "ä long one " * 12 for number in range(12)]
    result = publish.run(config_of(job, paths, samples=prompts), paths, lambda _: None)
    assert len(result.to_json().encode()) <= MAX_RESULT_BYTES
    assert result.published is not None
    assert result.published.samples
    whole = json.loads((tmp_path / "output" / "samples.json").read_text())
    assert [row["prompt"] for row in whole] == prompts


def test_a_job_without_samples_still_has_its_model_tried(job: Job, paths: Paths, adapter: Path) -> None:
    told: list[str] = []
    result = publish.run(config_of(job, paths, samples=[]), paths, told.append)
    assert "asking the new model: 1 prompts" in told
    assert result == Result(
        stage=Stage.PUBLISH, exit_code=ExitCode.OK, message=result.message, published=result.published
    )
