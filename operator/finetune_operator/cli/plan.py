"""`finetune plan`: what the operator would apply for a job, offline."""

from __future__ import annotations

import copy
import json
import sys
from pathlib import Path
from typing import Any, Final

from finetune_operator import builtin
from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.status import JobStatus, Phase
from finetune_operator.cli import jobfile
from finetune_operator.cli.documents import to_yaml
from finetune_operator.cli.errors import CliError, Problem
from finetune_operator.plan.manifests.stages import resolved_config_map, stage_manifests
from finetune_operator.plan.model.claim_uris import claim_uri
from finetune_operator.plan.model.names import ANNOTATION_RUN_CONFIG, lasting_claim, workspace_folder
from finetune_operator.plan.model.plan import Manifest
from finetune_operator.plan.model.problems import SpecProblem
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.resolve.resolver import resolve
from finetune_trainer.contract import CheckpointRef, DataFormat, PreparedData, Stage, TrainedModel

_UNKNOWN_DIGEST: Final = "known-when-the-stage-before-has-ended"
_UNKNOWN_UID: Final = "00000000-0000-0000-0000-000000000000"
_UNKNOWN_DATA: Final = PreparedData(format=DataFormat.AUTO, rows=0, train_rows=0, eval_rows=0, digest=_UNKNOWN_DIGEST)
_UNKNOWN_MODEL: Final = TrainedModel(
    step=0, total_steps=0, epoch=0, trainable_parameters=0, total_parameters=0, digest=_UNKNOWN_DIGEST
)
_NOTES: Final = {
    Stage.PREPARE: "Stage prepare: checks the data and the model; takes no GPU.",
    Stage.TRAIN: "Stage train: one pod for each node. `prepared` in its RunConfig comes from stage prepare; "
    "its numbers are 0 here.",
    Stage.PUBLISH: "Stage publish. `prepared` and `trained` in its RunConfig come from the stages before.",
}


def plan(file: Path, output: str, templates: Path | None, workspace_size: str) -> None:
    """Prints the plan. Raises `CliError` for a job that cannot be planned."""
    if output not in ("yaml", "json"):
        raise CliError(f"-o {output}: yaml and json are known")
    job, contents = jobfile.read_job(file)
    more = jobfile.read_templates(templates) if templates else ()
    template = jobfile.find_template(job, (*contents.templates, *more, *builtin.templates()))
    settings = PlanSettings(default_workspace_size=workspace_size or None)
    job = _with_identity(job)
    try:
        resolved = resolve(job, template, settings, _resume_source(job))
        stages = {stage: _manifests(job, resolved, stage) for stage in Stage}
    except SpecProblem as error:
        raise CliError("the job cannot run:", Problem("", error.message)) from error
    sys.stdout.write(_as_yaml(job, resolved, stages) if output == "yaml" else _as_json(job, resolved, stages))


def _with_identity(job: FineTuneJob) -> FineTuneJob:
    """Names of folders and handovers hold the uid, which the API server gives a job when it is applied."""
    metadata = job.metadata.model_copy(update={"uid": job.metadata.uid or _UNKNOWN_UID})
    return job.model_copy(update={"metadata": metadata})


def _without_owner(manifest: Manifest) -> Manifest:
    """Kubectl refuses an owner that does not exist yet."""
    metadata = {key: value for key, value in manifest["metadata"].items() if key != "ownerReferences"}
    return {**manifest, "metadata": metadata}


def _resume_source(job: FineTuneJob) -> FineTuneJob | None:
    """Stands for the job that spec.checkpoints.resumeFrom names, with a checkpoint where a cluster would have it."""
    wanted = job.spec.checkpoints.resume_from
    if wanted is None or wanted.job is None:
        return None
    claim, folder = lasting_claim(wanted.job, _UNKNOWN_UID), workspace_folder(wanted.job, _UNKNOWN_UID)
    checkpoint = CheckpointRef(step=0, uri=claim_uri(claim, folder, "checkpoints", "step"), verified=True, bytes=0)
    metadata = job.metadata.model_copy(update={"name": wanted.job})
    status = JobStatus(phase=Phase.SUCCEEDED, checkpoints=(checkpoint,))
    return job.model_copy(update={"metadata": metadata, "status": status})


def _manifests(job: FineTuneJob, resolved: ResolvedSpec, stage: Stage) -> tuple[Manifest, ...]:
    prepared = None if stage is Stage.PREPARE else _UNKNOWN_DATA
    trained = _UNKNOWN_MODEL if stage is Stage.PUBLISH else None
    return tuple(map(_without_owner, stage_manifests(job, resolved, stage, prepared=prepared, trained=trained)))


def _resolved_document(resolved: ResolvedSpec) -> Any:
    return resolved.model_dump(mode="json", by_alias=True, exclude_none=True)


def _as_yaml(job: FineTuneJob, resolved: ResolvedSpec, stages: dict[Stage, tuple[Manifest, ...]]) -> str:
    """A stream that kubectl reads: the resolved config is a comment before the first object."""
    head = f"The config that {job.metadata.name} resolves to, with its template and every default:"
    parts = [_comment(f"{head}\n\n{to_yaml(_resolved_document(resolved))}"), "---\n"]
    parts.append(to_yaml(_without_owner(resolved_config_map(job, resolved))))
    for stage, manifests in stages.items():
        parts.append("---\n" + _comment(_NOTES[stage]))
        parts.append("---\n".join(to_yaml(_readable(manifest)) for manifest in manifests))
    return "".join(parts)


def _readable(manifest: Manifest) -> Manifest:
    """The manifest with its RunConfig on many lines: the same JSON."""
    shown = copy.deepcopy(manifest)
    annotations = shown["spec"].get("template", {}).get("metadata", {}).get("annotations", {})
    if ANNOTATION_RUN_CONFIG in annotations:
        config = json.loads(annotations[ANNOTATION_RUN_CONFIG])
        annotations[ANNOTATION_RUN_CONFIG] = json.dumps(config, indent=2, ensure_ascii=False)
    return shown


def _comment(text: str) -> str:
    return "".join(f"# {line}".rstrip() + "\n" for line in text.rstrip().splitlines())


def _as_json(job: FineTuneJob, resolved: ResolvedSpec, stages: dict[Stage, tuple[Manifest, ...]]) -> str:
    """A v1 List that kubectl reads, with the resolved config beside its items."""
    items = [
        _without_owner(resolved_config_map(job, resolved)),
        *(one for manifests in stages.values() for one in manifests),
    ]
    document = {"apiVersion": "v1", "kind": "List", "resolved": _resolved_document(resolved), "items": items}
    return json.dumps(document, indent=2) + "\n"
