"""Every combination of the compatibility table: it trains three steps and comes out, or it is refused in words."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.trainer_runtime.conftest import Site
from tests.unit.trainer_runtime.test_training import train_here

from finetune_trainer.adaptations import METHODS
from finetune_trainer.compatibility import Choice, choices
from finetune_trainer.contract import ExitCode
from finetune_trainer.errors import InvalidConfig

pytestmark = pytest.mark.slow

TOGETHER = [choice for choice in choices() if choice.refused is None]
EIGHT_BITS = {"load_in_8bit": True}
STEPS = {"max_steps": 3, "per_device_train_batch_size": 2}


def asking_for(choice: Choice) -> dict[str, Any]:
    """The user's words for it."""
    base, adaptation, objective, _ = choice.names
    wanted = ("nf4" if base == "int8" else base, adaptation)
    method = next(name for name, means in METHODS.items() if means == wanted)
    return {
        "method": method,
        "objective": objective,
        "peftConfig": {"r": 2} if choice.adaptation.takes_peft_config else {},
        "quantizationConfig": EIGHT_BITS if base == "int8" else {},
        "trainerConfig": STEPS,
    }


def named(choice: Choice) -> str:
    return "-".join(choice.names)


@pytest.mark.parametrize("choice", [c for c in TOGETHER if not c.strategy.several], ids=named)
def test_one_process_trains_it(site: Site, choice: Choice) -> None:
    site = site.but(training=asking_for(choice))
    assert Choice.of(site.config.training, site.config.topology).names == choice.names
    result = train_here(site)
    assert result.exit_code is ExitCode.OK, result.message
    assert result.trained is not None
    assert result.trained.step == 3


@pytest.mark.matrix
@pytest.mark.parametrize("choice", [c for c in TOGETHER if c.strategy.several], ids=named)
def test_a_gang_of_two_trains_it(site: Site, choice: Choice) -> None:
    site = site.but(training=asking_for(choice), topology={"nodes": 2})
    assert Choice.of(site.config.training, site.config.topology).names == choice.names
    for code, result in [pod.end() for pod in site.start_gang()]:
        assert code == 0, result.message


@pytest.mark.parametrize("optim", ["apollo_adamw", "grokadamw"])
def test_what_a_library_refuses_before_the_first_step_is_refused_for_good(site: Site, optim: str) -> None:
    site = site.but(training={"trainerConfig": {**STEPS, "optim": optim}})
    try:
        result = train_here(site)
    except InvalidConfig as error:
        result = error.result(site.config.stage)
    assert result.exit_code is ExitCode.INVALID_CONFIG
    assert result.field is not None
    assert result.field.startswith("spec.training.trainerConfig")
