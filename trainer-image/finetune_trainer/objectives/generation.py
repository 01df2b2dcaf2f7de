"""Greedy answers of a causal language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

MAX_NEW_TOKENS: Final = 64
_BATCH: Final = 8


def generated(model: Any, tokenizer: Any, prompts: Sequence[str]) -> list[str]:
    """The model's greedy answer to each prompt, asked through the chat template where there is one."""
    import torch  # noqa: PLC0415 - the operator reads the registry, too

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
