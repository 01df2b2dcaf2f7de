"""The two streams of the CLI: what was asked for goes to standard output, everything about it to standard error."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from finetune_operator.cli.errors import CliError


def output() -> Console:
    """Standard output, not wrapped and not coloured when it is no terminal."""
    return Console(highlight=False, soft_wrap=True)


def errors() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(error: CliError) -> None:
    """Prints the error, each problem on lines of its own, then what to do."""
    console = errors()
    console.print(Text(error.message, style="bold red"))
    for problem in error.problems:
        line = Text("  ")
        line.append(problem.where, style="bold")
        line.append(": " if problem.where else "")
        line.append(problem.what, style="red")
        console.print(line)
        if problem.advice:
            console.print(Text(f"      {problem.advice}", style="dim"))
    if error.advice:
        console.print(Text(error.advice, style="yellow"))
