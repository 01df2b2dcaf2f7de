"""The artifact's folder: weights, tokenizer, model card, samples, the run's configuration."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Final

from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import RunConfig, Sample, Stage, TrainedModel
from finetune_trainer.workspace import Paths, writing

CARD: Final = "README.md"
SAMPLES: Final = "samples.json"
RUN: Final = "run.json"
_ADAPTER_CONFIG: Final = "adapter_config.json"
_NOT_PUBLISHED: Final = {"training_args.bin", CARD, "SHA256SUMS"}
"""What libraries leave in the folder of the weights and nobody needs (pickles, empty model cards)."""


def kind_of(config: RunConfig) -> str:
    """`adapter` or `model`."""
    return _choice(config).adaptation.artifact


def _choice(config: RunConfig) -> Choice:
    return Choice.of(config.training, config.topology)


def base_name(config: RunConfig) -> str:
    """What the base model is called in the artifact: its name on the Hub, else its URI."""
    return config.model.uri.removeprefix("hf://").removeprefix("models/")


def run_json(config: RunConfig) -> str:
    """The run's configuration: enough to repeat it, and equal for equal runs."""
    return json.dumps(config.model_dump(mode="json", by_alias=True, exclude_none=True), indent=2) + "\n"


def assemble(config: RunConfig, paths: Paths, tokenizer: Any, samples: list[Sample]) -> Path:
    """Puts the artifact together; large files stay where they are and are linked to."""
    folder = paths.artifact_dir
    with writing(str(folder)):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        tokenizer.save_pretrained(folder)
        for file in sorted(paths.trained_dir.rglob("*")):
            name = file.relative_to(paths.trained_dir)
            if file.is_file() and file.name not in _NOT_PUBLISHED and not (folder / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).symlink_to(file)
        if (folder / _ADAPTER_CONFIG).exists():
            _name_base(folder / _ADAPTER_CONFIG, config)
        rows = [sample.model_dump() for sample in samples]
        (folder / SAMPLES).write_text(json.dumps(rows, indent=2, ensure_ascii=False) + "\n")
        (folder / RUN).write_text(run_json(config))
        (folder / CARD).write_text(model_card(config, samples))
    return folder


def model_card(config: RunConfig, samples: list[Sample]) -> str:
    """A model card as the Hub reads it: YAML in front, then Markdown."""
    trained = config.trained
    if trained is None or config.stage is not Stage.PUBLISH:
        raise ValueError("a model card needs a trained model")
    base = base_name(config)
    front = ["---", f"base_model: {json.dumps(base)}", f"library_name: {_library(config)}", "tags:", "- fine-tuned"]
    front += [f"- {tag}" for tag in _choice(config).adaptation.tags]
    rows = "\n".join(f"| {name} | {value} |" for name, value in _figures(config, trained))
    shown = "\n".join(_shown(sample) for sample in samples)
    return (
        "\n".join([*front, "---"])
        + f"\n\n# {config.job.name}\n\n`{base}` fine-tuned ({config.training.method}) by finetune-operator.\n\n"
        + f"| | |\n| --- | --- |\n{rows}\n"
        + (f"\n## Before and after\n\n{shown}" if shown else "")
        + f"\n## Use it\n\n```python\n{_usage(config, base)}```\n\n"
        + f"`{RUN}` holds the configuration, `SHA256SUMS` the checksums (`sha256sum -c SHA256SUMS`).\n"
    )


def _figures(config: RunConfig, trained: TrainedModel) -> list[tuple[str, str]]:
    prepared = config.prepared
    figures = [
        ("Dataset", ", ".join(f"`{source.uri}`" for source in config.datasets)),
        ("Rows", "" if prepared is None else f"{prepared.train_rows:,} trained on, {prepared.eval_rows:,} held out"),
        ("Steps", f"{trained.step:,} (epoch {trained.epoch:g})"),
        ("Loss", _loss(trained.loss)),
        ("Held-out loss", f"{_loss(trained.eval_loss)} (base model {_loss(trained.base_eval_loss)})"),
        ("Trainable parameters", f"{trained.trainable_parameters:,} of {trained.total_parameters:,}"),
        ("Model revision", "" if prepared is None else prepared.model_revision or ""),
        ("Dataset digest", "" if prepared is None else prepared.digest),
    ]
    return [(name, value) for name, value in figures if value]


def _loss(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


def _shown(sample: Sample) -> str:
    lines = (("Prompt", sample.prompt), ("Before", sample.before), ("After", sample.after))
    return "\n".join(f"**{name}**\n\n{_quoted(text)}\n" for name, text in lines)


def _quoted(text: str) -> str:
    return "\n".join(f"> {line}" for line in text.splitlines() or [""])


def _library(config: RunConfig) -> str:
    return "peft" if kind_of(config) == "adapter" else "transformers"


def _usage(config: RunConfig, base: str) -> str:
    auto = _choice(config).objective.auto_class
    if kind_of(config) == "model":
        return (
            f"from transformers import {auto}, AutoTokenizer\n\n"
            f'model = {auto}.from_pretrained("this/folder")\n'
            'tokenizer = AutoTokenizer.from_pretrained("this/folder")\n'
        )
    return (
        "from peft import PeftModel\n"
        f"from transformers import {auto}, AutoTokenizer\n\n"
        f"{_load_base(config, auto, base)}\n"
        'model = PeftModel.from_pretrained(base, "this/folder")\n'
        'tokenizer = AutoTokenizer.from_pretrained("this/folder")\n'
    )


def _load_base(config: RunConfig, auto: str, base: str) -> str:
    if config.model.uri.startswith("hf://"):
        return f'base = {auto}.from_pretrained("{base}")'
    return f'base = {auto}.from_pretrained("its/folder")  # {base}'


def _name_base(file: Path, config: RunConfig) -> None:
    """The library writes the path at which the base model happened to lie; a reader needs its name."""
    content = json.loads(file.read_text())
    content["base_model_name_or_path"] = base_name(config)
    content["revision"] = config.prepared.model_revision if config.prepared is not None else None
    file.unlink()  # it is a link to the trained weights' own
    file.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")
