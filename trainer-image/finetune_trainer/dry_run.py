"""Prepare's dry run: the job's own trainer takes a step on a small copy of its model, which is saved and loaded again.

What the libraries refuse is found here, for nothing, rather than by every GPU of the job.
"""

from __future__ import annotations

import importlib.util
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from finetune_trainer import log, machine_bound
from finetune_trainer.blocks import refused
from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import Block, CheckpointPolicy, Device, RunConfig, Topology, TrainingConfig
from finetune_trainer.errors import Internal, InvalidConfig
from finetune_trainer.loading import auto_class, load
from finetune_trainer.model import ModelFiles, load_config
from finetune_trainer.shrunk import is_large, narrowed, shrunk
from finetune_trainer.towers import is_of_tower
from finetune_trainer.training.arguments import training_arguments
from finetune_trainer.workspace import Paths

_REFUSALS: Final = (
    *(ValueError, TypeError, ImportError, KeyError, IndexError, AttributeError, NotImplementedError, RuntimeError),
    Internal,
)
"""What the libraries raise for what they cannot do."""
_TOKENS: Final = 12
_ROWS: Final = 2
_NEVER: Final = 10**6
_BRIEF: Final[Block] = {
    "max_steps": 1,
    "per_device_train_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
}
"""What makes it one step in this process."""
_OF_DATA: Final = frozenset(
    {
        *("pad_to_multiple_of", "dataloader_prefetch_factor", "dataloader_persistent_workers"),
        "dataloader_multiprocessing_context",
    }
)
_OF_THE_MACHINE: Final = re.compile(r"CUDA|NVML|nvidia|driver|\bGPU", re.IGNORECASE)
"""What libraries say where they miss a GPU: no verdict on a job that will have some."""
_ON_CPU: Final = frozenset({"float32", "bfloat16"})
"""Types that a CPU can train in."""


def dry_run(choice: Choice, config: RunConfig, paths: Paths, tokenizer: Any) -> None:
    """Raises `InvalidConfig` with the field that the libraries' words name, else `spec.training`."""
    _check_packages(config.training)
    model_config = load_config(config, paths)
    try:
        _try(choice, config, paths, tokenizer, model_config)
    except InvalidConfig as refusal:
        if config.topology.device is Device.CPU or not _OF_THE_MACHINE.search(refusal.message):
            raise
        log.logger().warning("the dry run was broken off: it needs a GPU", error=refusal.message)
    except Exception as error:  # noqa: BLE001 - a copy that breaks in a way of its own is no verdict on the job
        log.logger().warning("the dry run was broken off", error=str(error) or type(error).__name__)


def _try(choice: Choice, config: RunConfig, paths: Paths, tokenizer: Any, model_config: Any) -> None:
    with tempfile.TemporaryDirectory(dir=paths.scratch) as scratch:
        small = _save_small(choice, config, model_config, Path(scratch) / "base")
        if small is None:
            return
        _check_sizes(config, small, tokenizer, model_config)
        if _adapter_fits(choice, config, model_config, small):
            _train(choice, config, small, tokenizer, Path(scratch))


def _check_packages(training: TrainingConfig) -> None:
    """What needs a package that the image may lack."""
    attention, asked = machine_bound.attention_package(training.model_block), training.trainer_config
    if attention is not None:
        _need(attention, "modelConfig", "attn_implementation", "set it to sdpa")
    elif asked.get("padding_free"):
        raise InvalidConfig(
            "`padding_free` mixes rows under every attention but FlashAttention",
            field="spec.training.trainerConfig.padding_free",
            advice="remove it, or set modelConfig.attn_implementation to flash_attention_2",
        )
    for key, package in machine_bound.packages(asked).items():
        _need(package, "trainerConfig", key, "remove it" if key != "optim" else "set it to adamw_torch_fused")


def _need(package: str, block: str, key: str, advice: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise InvalidConfig(
            f"`{key}` needs the package {package}, which this image has not",
            field=f"spec.training.{block}.{key}",
            advice=f"{advice}, or use an image with {package}",
        )


def _save_small(choice: Choice, config: RunConfig, model_config: Any, folder: Path) -> Any | None:
    """A model of the job's kind with random weights, saved; None for an architecture that cannot be cut down."""
    import torch  # noqa: PLC0415 - slow to import

    try:
        small = shrunk(model_config)
        if is_large(_bare(choice, config, small).num_parameters()):
            small = narrowed(small, whole_vocabulary="trainable_token_indices" in config.training.peft_config)
            if is_large(_bare(choice, config, small).num_parameters()):
                raise ValueError("its layers are large still")  # noqa: TRY301 - told like what the architecture refuses
        trust = config.model.trust_remote_code
        model = auto_class(choice).from_config(small, trust_remote_code=trust, dtype=torch.float32)
        model.save_pretrained(folder)
    except Exception as error:  # noqa: BLE001 - any architecture may have a rule of its own about its sizes
        log.logger().warning("no dry run: a small copy of the model cannot be made", error=str(error))
        return None
    return model


def _bare(choice: Choice, config: RunConfig, model_config: Any) -> Any:
    """A model without storage."""
    import torch  # noqa: PLC0415 - as above

    with torch.device("meta"):
        return auto_class(choice).from_config(model_config, trust_remote_code=config.model.trust_remote_code)


def _adapter_fits(choice: Choice, config: RunConfig, model_config: Any, small: Any) -> bool:
    """Whether the small copy has the layers that the adapter names. Raises `InvalidConfig` when the model has not."""
    try:
        _adapt(choice, config, _bare(choice, config, small.config))
    except _REFUSALS as error:
        words = str(error)
    else:
        return True
    with _refusing(config.training, "peftConfig"):  # a whole model without storage may take a minute to make
        _adapt(choice, config, _bare(choice, config, model_config))
    log.logger().warning("no dry run: the adapter names layers that a small copy has not", error=words)
    return False


def _adapt(choice: Choice, config: RunConfig, bare: Any) -> None:
    """Puts the adapter, if there is one, into a model without storage."""
    import peft  # noqa: PLC0415 - as above

    adapter = choice.adaptation.peft_config(config.training, bare)
    if adapter is None:
        return
    if hasattr(adapter, "init_lora_weights"):
        adapter.init_lora_weights = True  # other initialisations read the weights
    peft.get_peft_model(bare, adapter)


def _check_sizes(config: RunConfig, small: Any, tokenizer: Any, model_config: Any) -> None:
    """What a short step on a small model does not meet."""
    vocabulary = getattr(model_config.get_text_config(), "vocab_size", None)
    if vocabulary is not None and tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= vocabulary:
        raise InvalidConfig(
            f"the pad token {tokenizer.pad_token!r} has the id {tokenizer.pad_token_id}, and the model has embeddings "
            f"for {vocabulary:,} tokens",
            field="spec.training.tokenizerConfig.pad_token",
            advice="name a token that the model has, for example its eos_token",
        )
    longest = learned_positions(small)
    if longest is not None and config.training.max_sequence_length > longest:
        raise InvalidConfig(
            f"the model has learned {longest:,} positions, and rows may have "
            f"{config.training.max_sequence_length:,} tokens",
            field="spec.training.maxSequenceLength",
            advice=f"set it to {longest} or less",
        )


def learned_positions(model: Any) -> int | None:
    """How many positions an embedding of positions has; None where positions are computed."""
    import torch  # noqa: PLC0415 - as above

    limit = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    learned = (
        module.num_embeddings
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding) and re.search(r"(wpe|position)", name) and not is_of_tower(name)
    )
    found = next(learned, None)
    return None if found is None else min(found, limit or found)


def _train(choice: Choice, config: RunConfig, small: Any, tokenizer: Any, scratch: Path) -> None:
    """One step, a save, and the way back."""
    from transformers import PrinterCallback  # noqa: PLC0415 - slow to import

    rehearsal, base = _rehearsal(config), ModelFiles(scratch / "base")
    choice = Choice.of(rehearsal.training, rehearsal.topology)  # one process, of however many
    asked = config.training.model_block
    arguments: dict[str, Any] = {"dtype": asked["dtype"]} if asked.get("dtype") in _ON_CPU else {}
    if asked.get("attn_implementation") is not None and machine_bound.attention_package(asked) is None:
        arguments["attn_implementation"] = asked["attn_implementation"]
    with _refusing(config.training, "modelConfig", "quantizationConfig"):
        model = load(choice, rehearsal, base, arguments, scratch)
    with _refusing(config.training, "peftConfig"):
        trainer = choice.objective.trainer_class()(
            args=training_arguments(choice, rehearsal, scratch / "run", evaluates=False, evaluates_base=False),
            train_dataset=_rows(small.config.get_text_config().vocab_size),
            **choice.objective.parts(model, tokenizer, choice.adaptation.peft_config(config.training, model)),
        )
    trainer.remove_callback(PrinterCallback)
    with _refusing(config.training, "trainerConfig"):
        trainer.train()
    with _refusing(config.training, "peftConfig"):
        trainer.save_model(str(scratch / "trained"))
        trust = config.model.trust_remote_code
        choice.adaptation.compare(
            lambda: load(choice, rehearsal, base, arguments, scratch),
            scratch / "trained",
            lambda _model, _whose: [],
            trust_remote_code=trust,
        )


def _rehearsal(config: RunConfig) -> RunConfig:
    """The job on one CPU process, brief, without what only a GPU has."""
    training = config.training
    left_out = machine_bound.ARGUMENTS | _OF_DATA
    asked = {key: value for key, value in training.trainer_config.items() if key not in left_out}
    if config.topology.device is Device.CUDA and machine_bound.optimizer_package(asked) is not None:
        del asked["optim"]
        asked.pop("optim_args", None)
    return config.model_copy(
        update={
            "topology": Topology(device=Device.CPU),
            "checkpoints": CheckpointPolicy(every_seconds=_NEVER),
            "training": training.model_copy(update={"trainer_config": {**asked, **_BRIEF}}),
        }
    )


def _rows(vocabulary: int) -> Any:
    """Rows of equal length: nothing is padded."""
    from datasets import Dataset  # noqa: PLC0415 - slow to import

    rows = [[(row + place) % vocabulary for place in range(_TOKENS)] for row in range(_ROWS)]
    return Dataset.from_dict({"input_ids": rows, "labels": rows})


@contextmanager
def _refusing(training: TrainingConfig, *likely: str) -> Iterator[None]:
    """Turns what the libraries refuse into `InvalidConfig`; these blocks are `likely` to be at fault."""
    try:
        yield
    except InvalidConfig:
        raise
    except _REFUSALS as error:
        raise refused(training, error, "a dry run of the training failed", *likely) from error
