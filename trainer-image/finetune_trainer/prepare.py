"""The prepare stage: everything that can go wrong without a GPU goes wrong here, the cheap things first."""

from __future__ import annotations

from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import ExitCode, PreparedData, Result, RunConfig, Stage
from finetune_trainer.data import PreparedDataset, load_prepared, prepare_dataset
from finetune_trainer.data.store import read_receipt
from finetune_trainer.dry_run import dry_run
from finetune_trainer.errors import InvalidData
from finetune_trainer.model import fetch_model, load_tokenizer, model_files, model_revision, parameter_count
from finetune_trainer.training.resume import CheckpointSource
from finetune_trainer.uris import Address, Notify
from finetune_trainer.uris.folder import open_folder
from finetune_trainer.validation import validate
from finetune_trainer.workspace import Paths


def run(config: RunConfig, paths: Paths, notify: Notify) -> Result:
    """Checks the job and writes its tokenised dataset to the workspace. Raises `StageError`."""
    notify("checking the configuration")
    choice = Choice.of(config.training, config.topology)
    validate(choice, config.training)
    _probe_targets(config, paths)
    source = CheckpointSource.of(config, paths)
    resume_from = source.newest(notify) if source is not None else None
    fetch_model(config, paths, notify)
    notify("trying the training on a small copy of the model")
    dry_run(choice, config, paths, load_tokenizer(config, paths))
    prepared = prepare_dataset(config, paths, notify).model_copy(
        update={
            "model_revision": model_revision(config, paths),
            "model_parameters": parameter_count(model_files(config, paths)),
        }
    )
    if resume_from is not None:
        resume_from.check(config, prepared)
    return Result(stage=Stage.PREPARE, exit_code=ExitCode.OK, message=summary(prepared, config), prepared=prepared)


def ensure_prepared(config: RunConfig, paths: Paths, notify: Notify) -> PreparedDataset:
    """The dataset for the train stage; prepared again when the workspace did not outlive the prepare stage's pod.

    Raises `InvalidData` when the rows are not those that the prepare stage saw.
    """
    expected = config.prepared.digest if config.prepared is not None else None
    fetch_model(config, paths, notify)
    receipt = read_receipt(paths)
    if receipt is not None and receipt.prepared.digest == expected:
        return load_prepared(paths)
    if prepare_dataset(config, paths, notify).digest != expected:
        raise InvalidData(
            "the dataset is not the one that was prepared: its tokenised rows have another digest",
            field="spec.datasets[0].uri",
            advice="pin the dataset's revision, or set spec.workspace so that it outlives the pods",
        )
    return load_prepared(paths)


def _probe_targets(config: RunConfig, paths: Paths) -> None:
    """A place that cannot be written is found now rather than after the training."""
    output = Address(config.output.uri, "spec.output.uri", "output", paths.secret_dir(config.output.secret))
    open_folder(output, paths).probe()
    if config.checkpoints.uri is not None:
        secret = paths.secret_dir(config.checkpoints.secret)
        open_folder(Address(config.checkpoints.uri, "spec.checkpoints.uri", "output", secret), paths).probe()


def summary(prepared: PreparedData, config: RunConfig) -> str:
    """What was found, and everything that was left out, in words."""
    parts = [f"{prepared.train_rows:,} rows to train on, {prepared.eval_rows:,} held out, {prepared.tokens:,} tokens"]
    if prepared.learned_tokens is not None and prepared.tokens:
        parts.append(f"{prepared.learned_tokens / prepared.tokens:.0%} of the tokens are learned")
    if prepared.invalid_rows:
        parts.append(f"{prepared.invalid_rows:,} invalid rows left out")
    if prepared.truncated_rows:
        share = prepared.truncated_rows / prepared.rows
        length = config.training.max_sequence_length
        parts.append(f"{prepared.truncated_rows:,} rows ({share:.1%}) cut at {length:,} tokens")
    if prepared.unlearned_answers:
        parts.append(
            f"{prepared.unlearned_answers:,} answers not learned, or without their reasoning: "
            "the chat template writes them otherwise"
        )
    return "; ".join(parts)
