"""Writes the API reference from the models: `python -m tools.reference docs/reference.md`."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from collections.abc import Iterator
from enum import StrEnum
from itertools import pairwise, product
from pathlib import Path
from typing import Any

from finetune_operator.api.crd import definitions
from finetune_operator.api.status import AttemptEnd, Reason
from finetune_trainer.adaptations import ADAPTATIONS, METHODS
from finetune_trainer.bases import BASES
from finetune_trainer.compatibility import choices
from finetune_trainer.contract import ExitCode
from finetune_trainer.objectives import OBJECTIVES

Schema = dict[str, Any]

_HEAD = """# API reference

Generated from `operator/finetune_operator/api` by `make generate`; `kubectl explain ftj.spec` says the same.
"""

_REASONS = """## Reasons

In `status.reason`, in the conditions, and as the reason of events.

| reason | meaning |
| --- | --- |"""

_EXIT_CODES = """## Exit codes of the trainer

The name is reported in `status.reason` (in CamelCase), in `status.attempts[].reason` and in the pods' logs.

| code | name | what happens |
| --- | --- | --- |
"""

_COMBINATIONS = """## What can be trained how

By base weights, adaptation and objective; on one process (strategy `single`) and on several (`ddp`) alike.
`spec.training.method` names base weights and adaptation together: {methods}.
`quantizationConfig.load_in_8bit: true` takes `int8` instead of `nf4`.

| base weights | bytes a weight | adaptation | {objectives} |
| --- | --- | --- | {rules} |"""


def _combinations() -> Iterator[str]:
    """The compatibility table, as the operator and the trainer ask it."""
    methods = ", ".join(f"`{name}` is {base} + {adaptation}" for name, (base, adaptation) in METHODS.items())
    objectives = " | ".join(OBJECTIVES)
    yield _COMBINATIONS.format(methods=methods, objectives=objectives, rules=" | ".join("---" for _ in OBJECTIVES))
    for base, adaptation in product(BASES, ADAPTATIONS):
        found = [choice for choice in choices() if choice.names[:2] == (base, adaptation)]
        verdicts = (
            {choice.refused or "works" for choice in found if choice.objective.name == objective}
            for objective in OBJECTIVES
        )
        told = " | ".join("; ".join(sorted(verdict)) for verdict in verdicts)
        yield f"| {base} | {BASES[base].bytes_per_weight:g} | {adaptation} | {told} |"
    yield ""


_ENDS = """## Ends of attempts

In `status.attempts[].reason`. Later versions may add to them.

| reason | meaning |
| --- | --- |"""


def _kind(node: Schema) -> str:
    if node.get("x-kubernetes-int-or-string"):
        return "integer or string"
    if node.get("type") == "array":
        return f"[]{_kind(node['items'])}"
    if "enum" in node:
        return " \\| ".join(f"`{value}`" for value in node["enum"])
    if "additionalProperties" in node:
        return f"map of {_kind(node['additionalProperties'])}"
    return str(node.get("type", "any"))


def _bounds(node: Schema) -> str:
    words = [f"default `{node['default']}`"] if "default" in node else []
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None or high is not None:
        words.append(f"{'' if low is None else low} … {'' if high is None else high}".strip())
    return ", ".join(words)


def _rows(node: Schema, path: str) -> Iterator[str]:
    required = set(node.get("required", ()))
    for name, child in node.get("properties", {}).items():
        here = f"{path}.{name}"
        mark = " **(required)**" if name in required else ""
        text = child.get("description", "")
        yield f"| `{here}` | {_kind(child)} | {_bounds(child)} | {text}{mark} |"
        yield from _rows(child, here)
        if child.get("type") == "array":
            yield from _rows(child["items"], f"{here}[]")


def _section(definition: Schema) -> str:
    names = definition["spec"]["names"]
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    short = ", ".join(f"`{name}`" for name in names["shortNames"])
    lines = [f"## {names['kind']}", "", f"{schema['description']} Short name {short}.", ""]
    for part in ("spec", "status"):
        if part in schema["properties"]:
            lines += [
                f"### {names['kind']} {part}",
                "",
                "| field | type | bounds | meaning |",
                "| --- | --- | --- | --- |",
            ]
            lines += [*_rows(schema["properties"][part], part), ""]
    return "\n".join(lines)


def _exit_codes() -> str:
    return _EXIT_CODES + "\n".join(f"| {code.value} | {code.exit_name} | {code.consequence} |" for code in ExitCode)


def _members(of: type[StrEnum]) -> Iterator[str]:
    """Each member with the docstring that follows it in the source, which is its one description."""
    body = ast.parse(textwrap.dedent(inspect.getsource(of))).body[0]
    assert isinstance(body, ast.ClassDef)  # noqa: S101 - the source of a class is one
    for value, meaning in pairwise(body.body):
        match value, meaning:
            case ast.Assign(value=ast.Constant(value=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield f"| `{name}` | {' '.join(text.split())} |"


def render() -> str:
    """The whole reference as Markdown."""
    sections = (_section(definition) for definition in definitions())
    ends, reasons = _members(AttemptEnd), _members(Reason)
    return "\n".join([_HEAD, *sections, *_combinations(), _exit_codes(), "", _ENDS, *ends, "", _REASONS, *reasons, ""])


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render())
