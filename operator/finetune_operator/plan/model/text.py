"""Numbers, times and sentences as a status shows them."""

from __future__ import annotations

from typing import Final

from finetune_trainer.contract import Device, Topology

_MINUTE: Final = 60
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
_ROUND: Final = 100


def cut(text: str, longest: int) -> str:
    """The text in at most `longest` bytes of UTF-8."""
    encoded = text.encode()
    return text if len(encoded) <= longest else encoded[: longest - 3].decode(errors="ignore") + "..."


def duration(seconds: float) -> str:
    """Two units: 45s, 3m10s, 2h05m, 1d03h."""
    whole = max(0, round(seconds))
    if whole < _MINUTE:
        return f"{whole}s"
    if whole < _HOUR:
        return f"{whole // _MINUTE}m{whole % _MINUTE:02d}s"
    if whole < _DAY:
        return f"{whole // _HOUR}h{whole % _HOUR // _MINUTE:02d}m"
    return f"{whole // _DAY}d{whole % _DAY // _HOUR:02d}h"


def number(value: float | None) -> str | None:
    """Four significant digits, or the whole number when that has more."""
    if value is None:
        return None
    return f"{value:.0f}" if abs(value) >= _ROUND * _ROUND else f"{value:.4g}"


def percent(part: int, whole: int) -> str:
    """Rounded down: 100% only when it is all done."""
    return f"{min(100, _ROUND * part // whole)}%" if whole > 0 else "0%"


def count(amount: int, noun: str) -> str:
    """`1 pod`, `2 pods`."""
    return f"{amount} {noun}" if amount == 1 else f"{amount} {noun}s"


def layout(topology: Topology) -> str:
    """`16 GPUs in 2 pods`, `1 CPU process in 1 pod`."""
    what = "GPU" if topology.device is Device.CUDA else "CPU process"
    plural = "es" if what.endswith("s") else "s"
    amount = topology.world_size
    return f"{amount} {what}{plural if amount > 1 else ''} in {count(topology.nodes, 'pod')}"


def sentence(*parts: str | None) -> str:
    """The parts as sentences, one full stop between each two."""
    told = [part.strip().rstrip(".") for part in parts if part and part.strip()]
    return ". ".join(told)
