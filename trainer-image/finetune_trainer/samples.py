"""The answers before and after training: as many of them as fit a Result."""

from __future__ import annotations

from typing import Final

from finetune_trainer.contract import MAX_RESULT_BYTES, Published, Result, Sample

_SHORTER: Final = (1000, 600, 400, 250, 150, 80, 40)
"""Characters to cut texts to, until the Result fits."""


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
