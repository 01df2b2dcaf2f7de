"""The ranks that train together: how they meet, make sure that they are who was planned, and agree."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist

from finetune_trainer.contract import Device, Topology
from finetune_trainer.errors import Internal

T = TypeVar("T")

COLLECTIVE_TIMEOUT: Final = timedelta(minutes=10)
"""How long a rank waits for its peers in the middle of a step before it takes them for lost."""

AGREEMENT_TIMEOUT: Final = timedelta(hours=2)
"""How long a rank waits while another one downloads, evaluates, or hashes a checkpoint."""

BACKENDS: Final = {Device.CPU: "gloo", Device.CUDA: "nccl"}


@dataclass(frozen=True)
class Gang:
    """One process among the others. Two groups talk over TCP, apart from the gradients."""

    rank: int
    local_rank: int
    size: int
    control: Any = None
    """For what may take one rank long while the others wait for it."""
    step: Any = None
    """For what all ranks do at the same moment: one that hangs is found as soon as in a collective of gradients."""

    @classmethod
    def join(cls, topology: Topology, collective_timeout: timedelta = COLLECTIVE_TIMEOUT) -> Gang:
        """Meet the other ranks. Raises Internal when they are not the ones that were planned."""
        planned = topology.world_size
        if "RANK" not in os.environ:
            _expect("world size", planned, 1)
            return cls(rank=0, local_rank=0, size=1)
        if topology.device is Device.CUDA:
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group(BACKENDS[topology.device], timeout=collective_timeout)
        _expect("world size", planned, dist.get_world_size())
        _expect("backend", BACKENDS[topology.device], dist.get_backend())
        control = dist.new_group(backend="gloo", timeout=AGREEMENT_TIMEOUT)
        step = dist.new_group(backend="gloo", timeout=collective_timeout)
        return cls(dist.get_rank(), int(os.environ["LOCAL_RANK"]), dist.get_world_size(), control, step)

    @property
    def is_main_process(self) -> bool:
        return self.rank == 0

    @property
    def is_local_main_process(self) -> bool:
        """Whether this is the one process of its pod that works on the pod's own files."""
        return self.local_rank == 0

    def any_of(self, *flags: bool) -> tuple[bool, ...]:
        """Which flags at least one rank raises: the same on every rank, asked at the same step; a small all-reduce."""
        if self.size == 1:
            return flags
        raised = torch.tensor(flags, dtype=torch.uint8)
        dist.all_reduce(raised, op=dist.ReduceOp.MAX, group=self.step)
        return tuple(bool(flag) for flag in raised.tolist())

    def gather(self, mine: T) -> list[T]:
        """Every rank's value, by rank, on every rank."""
        if self.size == 1:
            return [mine]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, mine, group=self.control)
        return values

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self.control)


def _expect(what: str, planned: object, seen: object) -> None:
    if planned != seen:
        raise Internal(f"{what}: planned {planned}, but this process sees {seen}; it would train something else")
