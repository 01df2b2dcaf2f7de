"""What a test run says at its end besides what failed: why some did not run, where the story of a failure is."""

from __future__ import annotations

import pytest

TOLD = pytest.StashKey[list[str]]()


def tell(config: pytest.Config, line: str) -> None:
    """Has the line printed in the summary, once."""
    told = config.stash.setdefault(TOLD, [])
    if line not in told:
        told.append(line)
