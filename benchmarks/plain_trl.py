"""The peer of the trainer benchmark: the shortest TRL script that does the same training.

`python -m benchmarks.plain_trl SETTINGS.json FOLDER` prints one line of JSON: seconds of the loop, last loss.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

from datasets import load_dataset
from peft import LoraConfig
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer


def main(settings: dict[str, Any], folder: Path) -> dict[str, float]:
    """Train and return the seconds of the loop and the loss of its last step."""
    model_dir, gguf = settings["model_dir"], settings["gguf_file"]
    tokenizer = AutoTokenizer.from_pretrained(model_dir, gguf_file=gguf)
    model = AutoModelForCausalLM.from_pretrained(model_dir, gguf_file=gguf, dtype="float32")
    # Read from GGUF the weights are float32, yet still carry a mark that makes the Trainer refuse them.
    model.hf_quantizer = None
    model.is_quantized = False
    del model.config.quantization_config
    rows = load_dataset("json", data_files=settings["data"], split="train").select(range(settings["rows"]))
    chats = rows.map(
        lambda row: {
            "prompt": [{"role": "user", "content": row["prompt"]}],
            "completion": [{"role": "assistant", "content": row["completion"]}],
        },
        remove_columns=rows.column_names,
    )
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=str(folder),
            use_cpu=True,
            bf16=False,
            max_length=settings["max_length"],
            completion_only_loss=True,
            report_to="none",
            save_strategy="epoch",
            **settings["trainer"],
        ),
        train_dataset=chats,
        processing_class=tokenizer,
        peft_config=LoraConfig(**settings["peft"]),
    )
    began = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - began
    trainer.save_model(str(folder / "final"))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {"seconds": seconds, "loss": losses[-1]}


if __name__ == "__main__":
    result = main(json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2]))
    print(json.dumps(result), flush=True)
