"""Which base weights, adaptations, objectives and strategies go together: one table, from what the entries declare.

Used by the operator as soon as a job is applied, by prepare, and by the generated reference. Imports no torch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Self, TypeVar

from finetune_trainer.adaptations import ADAPTATIONS, METHODS
from finetune_trainer.adaptations.base import Adaptation
from finetune_trainer.bases import BASES
from finetune_trainer.bases.base import BaseWeights
from finetune_trainer.contract import Topology, TrainingConfig
from finetune_trainer.errors import InvalidConfig
from finetune_trainer.objectives import OBJECTIVES
from finetune_trainer.objectives.base import Objective
from finetune_trainer.strategies import STRATEGIES
from finetune_trainer.strategies.base import Strategy

T = TypeVar("T")


@dataclass(frozen=True)
class Choice:
    """What a job has chosen of each registry."""

    base: BaseWeights
    adaptation: Adaptation
    objective: Objective
    strategy: Strategy

    @classmethod
    def of(cls, training: TrainingConfig, topology: Topology) -> Self:
        """Raises `InvalidConfig` for a name that nothing has, a combination that cannot work, a block without use."""
        base, adaptation = _named("method", training.method, METHODS)
        choice = cls(
            BASES[_eight_bits(base, training)],
            ADAPTATIONS[adaptation],
            _named("objective", training.objective, OBJECTIVES),
            STRATEGIES["single" if topology.world_size == 1 else "ddp"],
        )
        if refused := choice.refused:
            raise InvalidConfig(refused, field="spec.training.method", advice=f"use one of {', '.join(METHODS)}")
        _refuse_unused(choice, training)
        return choice

    @property
    def names(self) -> tuple[str, str, str, str]:
        return self.base.name, self.adaptation.name, self.objective.name, self.strategy.name

    @property
    def refused(self) -> str | None:
        """Why the four do not go together; None when they do."""
        if self.adaptation.trains_base and self.base.quantised:
            return f"{self.adaptation.name} trains the base model's own weights, and {self.base.name} packs them"
        return None


def choices() -> Iterator[Choice]:
    """Every combination, those that are refused included."""
    for entries in product(BASES.values(), ADAPTATIONS.values(), OBJECTIVES.values(), STRATEGIES.values()):
        yield Choice(*entries)


def _named(field: str, name: str, known: Mapping[str, T]) -> T:
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean `{near[0]}`?" if near else ""
    raise InvalidConfig(
        f"there is no {field} `{name}`{hint}", field=f"spec.training.{field}", advice=f"use one of {', '.join(known)}"
    )


def _eight_bits(base: str, training: TrainingConfig) -> str:
    """`load_in_8bit`, where a quantised base is asked for, means the 8-bit one."""
    asks = BASES[base].quantised and training.quantization_config.get("load_in_8bit") in (True, "true")
    return "int8" if asks else base


def _refuse_unused(choice: Choice, training: TrainingConfig) -> None:
    if training.peft_config and not choice.adaptation.takes_peft_config:
        takers = [m for m, (_, name) in METHODS.items() if ADAPTATIONS[name].takes_peft_config]
        raise _unused("peftConfig", training.method, takers)
    if training.quantization_config and not choice.base.quantised:
        raise _unused("quantizationConfig", training.method, [m for m, (b, _) in METHODS.items() if BASES[b].quantised])


def _unused(block: str, method: str, instead: list[str]) -> InvalidConfig:
    return InvalidConfig(
        f"{block} does nothing with method {method}",
        field=f"spec.training.{block}",
        advice=f"remove {block}, or set method to {' or '.join(instead)}",
    )
