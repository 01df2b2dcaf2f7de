"""How the CLI says that it cannot go on. Imports next to nothing: every command starts with it."""

from __future__ import annotations

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and what would be right."""

    where: str
    what: str
    advice: str = ""


class CliError(Exception):
    """Ends the command with this exit code after saying why. 64 (EX_USAGE) is also the trainer's invalid-config."""

    def __init__(self, message: str, *problems: Problem, advice: str = "", exit_code: int = os.EX_USAGE) -> None:
        super().__init__(message)
        self.message = message
        self.problems = problems
        self.advice = advice
        self.exit_code = int(exit_code)
