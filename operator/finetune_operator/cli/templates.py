"""`finetune templates`: what there is to fill in."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from finetune_operator import builtin
from finetune_operator.api.resources import Template
from finetune_operator.cli import jobfile
from finetune_operator.cli.console import output
from finetune_operator.cli.documents import to_yaml
from finetune_operator.cli.errors import CliError
from finetune_trainer.contract import ExitCode


@dataclass(frozen=True)
class Sources:
    """Where to look for templates besides the built-in ones."""

    file: Path | None = None
    cluster: bool = False

    def all(self) -> Iterator[tuple[str, Template]]:
        """Every template with the name of its source."""
        yield from (("built in", one) for one in builtin.templates())
        if self.file is not None:
            yield from ((str(self.file), one) for one in jobfile.read_templates(self.file))
        if self.cluster:
            from finetune_operator.cli import kube  # noqa: PLC0415 - an extra

            yield from (("cluster", one) for one in kube.templates())


def list_templates(sources: Sources) -> None:
    """Prints a table of them."""
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("name", "kind", "method", "source", "description"):
        table.add_column(heading, overflow="fold", no_wrap=heading in ("name", "kind", "method"))
    for source, template in sources.all():
        training = template.spec.training
        method = training.method if training and training.method else "lora"
        where = f"{template.metadata.namespace}/" if source == "cluster" and template.metadata.namespace else ""
        table.add_row(where + template.metadata.name, template.kind, method, source, template.spec.description or "")
    output().print(table)


def show(sources: Sources, name: str) -> None:
    """Prints those of this name as YAML; one that is not built in comes first."""
    found = [template for _, template in sources.all() if template.metadata.name == name]
    if not found:
        names = ", ".join(sorted({template.metadata.name for _, template in sources.all()}))
        raise CliError(f"there is no template {name}", advice=f"known: {names}", exit_code=ExitCode.NOT_FOUND)
    sys.stdout.write(to_yaml(_manifest(found[-1])))


def _manifest(template: Template) -> dict[str, object]:
    """The template as a user would write it: nothing that the API server fills in."""
    place = {"namespace": template.metadata.namespace} if template.metadata.namespace else {}
    spec = template.spec.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "apiVersion": template.api_version,
        "kind": template.kind,
        "metadata": {"name": template.metadata.name, **place},
        "spec": spec,
    }
