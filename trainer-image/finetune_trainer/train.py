"""The train stage, as every rank runs it: `accelerate launch ... --module finetune_trainer.train`."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NoReturn

import torch
from transformers import PrinterCallback

from finetune_trainer import log
from finetune_trainer.blocks import refused
from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import (
    RUN_CONFIG_FILE,
    Device,
    ExitCode,
    Result,
    RunConfig,
    Stage,
    Topology,
    TrainedModel,
)
from finetune_trainer.data import PreparedDataset, load_prepared
from finetune_trainer.errors import Internal, Interrupted, InvalidConfig, OutOfMemory, StageError
from finetune_trainer.loading import load_base_model
from finetune_trainer.model import load_tokenizer
from finetune_trainer.pod.worker import StageContext, work
from finetune_trainer.prepare import ensure_prepared
from finetune_trainer.training import manifest, trained
from finetune_trainer.training.arguments import training_arguments
from finetune_trainer.training.callbacks import ProgressCallback, StopAndSave, peak_memory_bytes
from finetune_trainer.training.checkpoint import CheckpointStore
from finetune_trainer.training.checkpoint_mirror import CheckpointMirror
from finetune_trainer.training.gang import COLLECTIVE_TIMEOUT, Gang
from finetune_trainer.training.manifest import Facts
from finetune_trainer.training.resume import adopt, agrees_on
from finetune_trainer.training.trainer import CheckpointedTrainer, RunFacts, check_shapes, trainer_of

_REFUSALS: Final = (ValueError, TypeError, ImportError, NotImplementedError)
"""What the libraries raise for what they cannot do, on whatever machine."""
_BLOCKS: Final = ("modelConfig", "quantizationConfig", "peftConfig", "trainerConfig")


@dataclass(frozen=True)
class Session:
    """One attempt at training, ready to begin."""

    context: StageContext
    gang: Gang
    notify: Callable[[str], None]
    store: CheckpointStore
    trainer: CheckpointedTrainer
    stop: StopAndSave
    figures: ProgressCallback
    resume: tuple[Path, Facts] | None


def train(context: StageContext) -> Result:
    """Train from the newest checkpoint to the end, or until asked to stop. Every rank returns a Result."""
    _check_device(context.config.topology)
    gang = Gang.join(context.config.topology, _collective_timeout(context.config))
    notify = context.reporter.notify if gang.is_main_process else _say_nothing
    data = _prepared_data(context, gang, notify)
    session = _begun(context, gang, notify, data)
    began = time.monotonic()
    try:
        _learn(session)
        return _finish(session, seconds=time.monotonic() - began)
    except StageError as error:
        return error.result(Stage.TRAIN).model_copy(
            update={"step": session.trainer.state.global_step, "resumed_from_step": _resumed_step(session)}
        )


def _check_device(topology: Topology) -> None:
    """A GPU that the node has lost is no mistake of the job: another node may have it. Raises `Internal`."""
    visible = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if topology.device is Device.CUDA and visible < topology.processes_per_node:
        raise Internal(f"{topology.processes_per_node} GPUs are planned for this pod, and it sees {visible}")


def _begun(context: StageContext, gang: Gang, notify: Callable[[str], None], data: PreparedDataset) -> Session:
    """A set-up that the libraries refuse comes again with every attempt."""
    try:
        return _set_up(context, gang, notify, data)
    except _REFUSALS as error:
        raise refused(context.config.training, error, "training cannot begin", *_BLOCKS) from error


def _prepared_data(context: StageContext, gang: Gang, notify: Callable[[str], None]) -> PreparedDataset:
    """The tokenised rows; a pod whose workspace has none prepares them again, once."""
    if gang.is_local_main_process:
        ensure_prepared(context.config, context.paths, notify)
    gang.barrier()
    return load_prepared(context.paths)


def _set_up(context: StageContext, gang: Gang, notify: Callable[[str], None], data: PreparedDataset) -> Session:
    config, paths = context.config, context.paths
    choice = Choice.of(config.training, config.topology)
    run = trained.run_digest(config)
    store = CheckpointStore(
        paths.checkpoints_dir,
        gang,
        run=run,
        keep=config.checkpoints.keep,
        mirror=CheckpointMirror.of(config.checkpoints, paths),
        notify=notify,
    )
    resume = store.newest()
    if resume is None and config.checkpoints.resume_from is not None:
        adopt(config, paths, gang, store, notify)
        resume = store.newest()
    notify("loading the model")
    stop = StopAndSave(gang, context.files.stop_file, config.checkpoints.longest_seconds)
    base = resume[1].base_eval_loss if resume else None
    figures = ProgressCallback(context.reporter if gang.is_main_process else None, lambda: store.refs, base)
    model = load_base_model(choice, config, paths)
    trainer = trainer_of(choice.objective.trainer_class())(
        gang=gang,
        store=store,
        figures=figures,
        choice=choice,
        facts=RunFacts(run, agrees_on(config, config.prepared) if config.prepared else None),
        resume=resume[1] if resume else None,
        args=training_arguments(
            choice,
            config,
            paths.checkpoints_dir,
            evaluates=bool(data.eval),
            evaluates_base=bool(data.eval) and resume is None,
        ),
        train_dataset=data.train,
        eval_dataset=data.eval or None,
        **choice.objective.parts(
            model, load_tokenizer(config, paths), choice.adaptation.peft_config(config.training, model)
        ),
        callbacks=[stop, figures],
    )
    trainer.remove_callback(PrinterCallback)
    if gang.is_main_process:
        trainable, total = _parameters(trainer.model)
        context.reporter.update(
            trainable_parameters=trainable,
            total_parameters=total,
            world_size=gang.size,
            resumed_from_step=resume[1].step if resume else None,
        )
    return Session(context, gang, notify, store, trainer, stop, figures, resume)


def _learn(session: Session) -> None:
    """The training loop. Raises Interrupted once a checkpoint of the last step is saved, Diverged, OutOfMemory."""
    trainer, store = session.trainer, session.store
    if session.resume is not None:
        _check_position(session.resume[1], trainer, session.gang)
        session.notify(f"resuming from step {session.resume[1].step}")
    try:
        trainer.train(resume_from_checkpoint=str(session.resume[0]) if session.resume else None)
    except Interrupted:  # during an evaluation
        if trainer.state.global_step > (store.newest_step or 0):
            trainer.save_checkpoint()
    except torch.OutOfMemoryError as error:
        raise _out_of_memory(session.context.config, trainer, error) from error
    except _REFUSALS as error:
        if trainer.state.global_step > (_resumed_step(session) or 0):
            raise
        raise refused(session.context.config.training, error, "the first step failed", *reversed(_BLOCKS)) from error
    if session.stop.stopping:
        step, kept = trainer.state.global_step, store.newest_step
        saved = f"checkpoint {kept} is saved" if kept is not None else "there was nothing to save yet"
        raise Interrupted(f"asked to stop: ended after step {step} of {trainer.state.max_steps}; {saved}")


def _finish(session: Session, seconds: float) -> Result:
    """Save the final weights, hand them over, and say what was made."""
    config, paths, trainer = session.context.config, session.context.paths, session.trainer
    if trainer.eval_dataset is not None and session.figures.eval_loss is None:
        trainer.evaluate()
    peak = max(session.gang.gather(peak_memory_bytes()))
    if not session.gang.is_main_process:
        session.gang.barrier()
        return Result(stage=Stage.TRAIN, exit_code=ExitCode.OK, message=f"rank {session.gang.rank} is done")
    session.notify("saving the trained model")
    trained.save_weights(paths, lambda folder: _save(session, folder))
    model = _trained_model(session, peak, seconds, digest=manifest.digest_of(paths.trained_dir))
    result = Result(
        stage=Stage.TRAIN,
        exit_code=ExitCode.OK,
        message=f"trained {model.total_steps} steps, world size {session.gang.size}",
        step=model.step,
        resumed_from_step=model.resumed_from_step,
        trained=model,
    )
    trained.save_record(config, paths, result)
    trained.hand_over(config, paths, session.notify)
    session.gang.barrier()
    session.notify("trained")
    return result


def _save(session: Session, folder: Path) -> None:
    """The weights and tokenizer, with what it takes to repeat the run by hand."""
    session.trainer.save_model(str(folder), _internal_call=True)
    (folder / "training_args.bin").unlink(missing_ok=True)  # a pickle of no use to anybody who loads the model
    (folder / RUN_CONFIG_FILE).write_text(session.context.config.to_json())
    launch_config = session.context.files.launch_config
    if launch_config.is_file():  # a person may start the ranks without us
        shutil.copyfile(launch_config, folder / launch_config.name)


def _trained_model(session: Session, peak: int, seconds: float, digest: str) -> TrainedModel:
    state, figures = session.trainer.state, session.figures
    trainable, total = _parameters(session.trainer.model)
    return TrainedModel(
        step=state.global_step,
        total_steps=state.max_steps,
        epoch=round(float(state.epoch or 0.0), 4),
        loss=figures.loss,
        eval_loss=figures.eval_loss,
        base_eval_loss=figures.base_eval_loss,
        tokens_per_second=figures.watch.mean_tokens_per_second,
        trainable_parameters=trainable,
        total_parameters=total,
        peak_memory_bytes=peak,
        resumed_from_step=_resumed_step(session),
        seconds=round(seconds, 3),
        checkpoints=session.store.refs,
        digest=digest,
    )


def _check_position(facts: Facts, trainer: CheckpointedTrainer, gang: Gang) -> None:
    """A checkpoint says how many steps were done; that is a place in the data only at the same global batch."""
    if facts.global_batch != trainer.global_batch:
        raise InvalidConfig(
            f"checkpoint {facts.step} was made with {facts.global_batch} rows a step, this run has "
            f"{trainer.global_batch}: it cannot continue in the same data order",
            field="spec.training.trainerConfig.gradient_accumulation_steps",
            advice="keep per_device_train_batch_size x gradient_accumulation_steps x gpus as it was",
        )
    check_shapes(facts, trainer.model)
    if facts.world_size != gang.size:
        log.logger().warning("resuming on another number of ranks", saved_by=facts.world_size, ranks=gang.size)


def _out_of_memory(config: RunConfig, trainer: CheckpointedTrainer, error: torch.OutOfMemoryError) -> OutOfMemory:
    args = trainer.args
    return OutOfMemory(
        f"out of GPU memory at step {trainer.state.global_step}: micro-batch {args.per_device_train_batch_size} x "
        f"{config.training.max_sequence_length} tokens, peak {peak_memory_bytes() / 2**30:.1f} GiB. {error}",
        field="spec.training.trainerConfig.per_device_train_batch_size",
        advice="halve per_device_train_batch_size and double gradient_accumulation_steps, turn on "
        "gradient_checkpointing, or lower maxSequenceLength",
    )


def _parameters(model: Any) -> tuple[int, int]:
    """Trainable and all parameters; PEFT counts what a quantised layer stands for, not what it is packed into."""
    if hasattr(model, "get_nb_trainable_parameters"):
        trainable, total = model.get_nb_trainable_parameters()
        return int(trainable), int(total)
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    return sum(size for size, trains in sizes if trains), sum(size for size, _ in sizes)


def _resumed_step(session: Session) -> int | None:
    return session.resume[1].step if session.resume else None


def _collective_timeout(config: RunConfig) -> timedelta:
    asked = config.training.trainer_config.get("ddp_timeout")
    return timedelta(seconds=float(asked)) if isinstance(asked, int | float) else COLLECTIVE_TIMEOUT


def _say_nothing(_message: str) -> None:
    """Rank 0 speaks for all."""


def main() -> NoReturn:
    work(Stage.TRAIN, train)


if __name__ == "__main__":
    main()
