"""What an entry of the registry of strategies knows: how one model is trained by several processes."""

from __future__ import annotations

from typing import Any, Protocol

from finetune_trainer.contract import Topology


class Strategy(Protocol):
    """One way to spread the work. Importing an entry imports no torch."""

    @property
    def name(self) -> str: ...

    @property
    def several(self) -> bool:
        """Whether it is for several processes."""
        ...

    def launch_config(self, topology: Topology) -> dict[str, Any]:
        """What `accelerate launch` is told of it, besides where the processes are."""
        ...

    def trainer_arguments(self, topology: Topology) -> dict[str, Any]:
        """Arguments of the trainer that it decides."""
        ...

    def unwrapped(self, wrapped: Any) -> Any | None:
        """The model within what the trainer made of it; None when that is not what this strategy makes."""
        ...
