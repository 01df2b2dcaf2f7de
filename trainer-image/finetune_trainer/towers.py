"""The parts of a multimodal model that text does not pass through."""

from __future__ import annotations

import re
from typing import Final

TOWERS: Final = r"(.*\.)?(vision|visual|image|audio|speech|multi_modal_projector)\w*(\..*)?"
"""A pattern for the whole name of a module in one of them."""


def is_of_tower(module: str) -> bool:
    """Whether the module of this name is one that text does not pass through."""
    return re.fullmatch(TOWERS, module) is not None
