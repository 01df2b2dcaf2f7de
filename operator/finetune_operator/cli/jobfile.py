"""Reads a job and the templates around it from YAML."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from finetune_operator.api.base import API_VERSION, GROUP
from finetune_operator.api.resources import ClusterFineTuneTemplate, FineTuneJob, FineTuneTemplate, Template
from finetune_operator.cli.documents import KubernetesLoader
from finetune_operator.cli.errors import CliError, Problem
from finetune_operator.cli.problems import problems_of
from finetune_trainer.contract import ExitCode

DEFAULT_NAMESPACE: Final = "default"
_KINDS: Final[dict[str, type[FineTuneJob | FineTuneTemplate | ClusterFineTuneTemplate]]] = {
    "FineTuneJob": FineTuneJob,
    "FineTuneTemplate": FineTuneTemplate,
    "ClusterFineTuneTemplate": ClusterFineTuneTemplate,
}


@dataclass(frozen=True)
class Contents:
    """What a file holds."""

    jobs: tuple[FineTuneJob, ...] = ()
    templates: tuple[Template, ...] = ()
    others: tuple[str, ...] = field(default=())
    """Kinds that are of no use without a cluster."""


def read(path: Path) -> Contents:
    """Every document of the file (`-` is standard input). Raises `CliError` listing all that is wrong."""
    jobs: list[FineTuneJob] = []
    templates: list[Template] = []
    others: list[str] = []
    problems: list[Problem] = []
    for document in _documents(path):
        try:
            parsed = _parse(document)
        except ValidationError as error:
            problems += problems_of(error, _KINDS[document["kind"]], document)
            continue
        if isinstance(parsed, FineTuneJob):
            jobs.append(parsed)
        elif isinstance(parsed, str):
            others.append(parsed)
        else:
            templates.append(parsed)
    if problems:
        raise CliError(f"{path} is not valid:", *problems)
    return Contents(tuple(jobs), tuple(templates), tuple(others))


def read_job(path: Path) -> tuple[FineTuneJob, Contents]:
    """The one FineTuneJob of the file, in its namespace, and everything else in it."""
    contents = read(path)
    if not contents.jobs:
        raise CliError(f"{path} holds no FineTuneJob", advice=f"start it with apiVersion: {API_VERSION}")
    if len(contents.jobs) > 1:
        names = ", ".join(job.metadata.name for job in contents.jobs)
        raise CliError(f"{path} holds {len(contents.jobs)} jobs ({names})", advice="give each job a file of its own")
    job = contents.jobs[0]
    metadata = job.metadata.model_copy(update={"namespace": job.metadata.namespace or DEFAULT_NAMESPACE})
    return job.model_copy(update={"metadata": metadata}), contents


def read_templates(path: Path) -> tuple[Template, ...]:
    """The templates of a file, or of every YAML file of a folder."""
    files = sorted([*path.glob("*.yaml"), *path.glob("*.yml")]) if path.is_dir() else [path]
    return tuple(template for file in files for template in read(file).templates)


def find_template(job: FineTuneJob, templates: Iterable[Template]) -> Template:
    """The template that the job names: a FineTuneTemplate of its namespace, else a ClusterFineTuneTemplate."""
    wanted, known = job.spec.template, list(templates)
    fitting = [
        one
        for one in known
        if one.metadata.name == wanted.name
        and (wanted.kind is None or one.kind == wanted.kind)
        and (isinstance(one, ClusterFineTuneTemplate) or one.metadata.namespace in (None, job.metadata.namespace))
    ]
    if not fitting:
        names = ", ".join(sorted({one.metadata.name for one in known}))
        problem = Problem("spec.template.name", f"there is no template {wanted.name}", f"known: {names}")
        advice = "--templates FILE adds templates; `finetune templates` lists those that are built in"
        raise CliError("the job cannot run:", problem, advice=advice)
    return min(fitting, key=lambda one: isinstance(one, ClusterFineTuneTemplate))


def _documents(path: Path) -> list[dict[str, Any]]:
    try:
        text = sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
        documents = [one for one in yaml.load_all(text, KubernetesLoader) if one is not None]
    except OSError as error:
        raise CliError(f"cannot read {path}: {error.strerror}", exit_code=ExitCode.NOT_FOUND) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CliError(f"{path} is not YAML: {error}") from error
    if not all(isinstance(one, dict) for one in documents):
        raise CliError(f"{path} holds something that is no Kubernetes object")
    return documents


def _parse(document: dict[str, Any]) -> FineTuneJob | Template | str:
    kind, version = str(document.get("kind", "")), str(document.get("apiVersion", ""))
    if not version.startswith(f"{GROUP}/") and kind not in _KINDS:
        return kind or "a document without kind"
    if kind not in _KINDS:
        problem = Problem("kind", f"{kind or 'nothing'} is no kind of {GROUP}", f"known: {', '.join(_KINDS)}")
        raise CliError("the file is not valid:", problem)
    # As strict as the API server: "2" is no number.
    return _KINDS[kind].model_validate_json(json.dumps(document), strict=True)
