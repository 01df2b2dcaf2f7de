"""Answers of a model to prompts, before and after training, and as many of them as fit a Result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch

from finetune_trainer.contract import MAX_RESULT_BYTES, Published, Result, Sample

MAX_NEW_TOKENS: Final = 64
_BATCH: Final = 8
_SHORTER: Final = (1000, 600, 400, 250, 150, 80, 40)
"""Characters to cut texts to, until the Result fits."""


def answers(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """The model's greedy answer to each prompt, asked through the chat template where there is one."""
    found: list[str] = []
    for start in range(0, len(prompts), _BATCH):
        texts = [_asked(tokenizer, prompt) for prompt in prompts[start : start + _BATCH]]
        rows = tokenizer(
            texts,
            add_special_tokens=not tokenizer.chat_template,
            padding=True,
            padding_side="left",
            return_token_type_ids=False,
            return_tensors="pt",
        ).to(model.device)
        with torch.inference_mode():
            out = model.generate(
                **rows,
                max_new_tokens=MAX_NEW_TOKENS,
                do_sample=False,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=_ends(model, tokenizer),
            )
        new = out[:, rows["input_ids"].shape[1] :]
        found += [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]
    return found


def fitted(result: Result, published: Published) -> Result:
    """The Result with as much of the samples' text as a termination message holds."""
    for length in _SHORTER:
        samples = tuple(_cut(sample, length) for sample in published.samples)
        fitting = _with(result, published, samples)
        if len(fitting.to_json().encode()) <= MAX_RESULT_BYTES:
            return fitting
    samples = tuple(_cut(sample, _SHORTER[-1]) for sample in published.samples)
    while samples and len(_with(result, published, samples).to_json().encode()) > MAX_RESULT_BYTES:
        samples = samples[:-1]
    return _with(result, published, samples)


def _with(result: Result, published: Published, samples: tuple[Sample, ...]) -> Result:
    return result.model_copy(update={"published": published.model_copy(update={"samples": samples})})


def _cut(sample: Sample, length: int) -> Sample:
    return Sample(**{name: text if len(text) <= length else text[: length - 1] + "…" for name, text in sample})


def _asked(tokenizer: Any, prompt: str) -> str:
    if not tokenizer.chat_template:
        return prompt
    rows = [{"role": "user", "content": prompt}]
    return str(tokenizer.apply_chat_template(rows, tokenize=False, add_generation_prompt=True))


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """Tokens that end an answer: the tokenizer's, and those that the model's own settings name."""
    own = model.generation_config.eos_token_id
    ends = {*(own if isinstance(own, list) else [own]), tokenizer.eos_token_id}
    return sorted(token for token in ends if token is not None)
