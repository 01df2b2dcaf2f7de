"""Opens a local run: the state folder, what is there from before, the machine, the Secrets."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from finetune_operator.api.resources import FineTuneJob, Template
from finetune_operator.api.spec import ResumeFrom, SecretRef, WorkspaceSpec
from finetune_operator.api.status import JobStatus
from finetune_operator.local import machine
from finetune_operator.local.beginning import Beginning, beginning, make_room, read_status
from finetune_operator.local.cluster import LocalCluster
from finetune_operator.local.folders import JobFolder, shown, write_atomically
from finetune_operator.local.other_runs import job_named, read_job
from finetune_operator.local.podspec import NotLocalError, Pod, Surroundings, launch
from finetune_operator.local.secret_source import SecretFolder, SecretsFromEnvironment, SecretSource
from finetune_operator.plan.manifests.stages import stage_manifests
from finetune_operator.plan.model.names import LABEL_QUEUE
from finetune_operator.plan.model.observed import Presence
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.resolve.resolver import claim_names, resolve, secret_names
from finetune_trainer.contract import Device, Stage

_CLAIM_SIZE: Final = "1Gi"
"""Of the folder that stands for a claim; nothing holds it to that."""

_LIBRARIES: Final = ("torch", "transformers", "trl", "peft", "accelerate", "datasets")

SETTINGS: Final = PlanSettings(trainer_image="this-environment", default_workspace_size=_CLAIM_SIZE)
"""As in a cluster whose administrator gives every job a workspace that lasts."""


class CannotRunHereError(Exception):
    """The job asks for something that this machine lacks. `advice` says what to do."""

    def __init__(self, message: str, advice: str) -> None:
        super().__init__(message)
        self.message = message
        self.advice = advice


@dataclass(frozen=True)
class Opened:
    """A job that is ready to run, or that has already run."""

    job: FineTuneJob
    resolved: ResolvedSpec
    how: Beginning
    before: JobStatus | None
    cluster: LocalCluster
    notices: tuple[str, ...]


@dataclass(frozen=True)
class Session:
    """Where and with what a job is to run on this machine."""

    folder: JobFolder
    environ: Mapping[str, str]
    secrets_dir: Path | None = None
    fresh: bool = False

    def open(self, job: FineTuneJob, template: Template, now: datetime) -> Opened:
        """Call with the folder's lock held. Raises `SpecProblem` and `CannotRunHereError`."""
        _check_libraries()
        queue = job.metadata.labels.get(LABEL_QUEUE)
        job = _with_identity(_without_queue(_with_workspace(job)), self.folder.uid())
        resolved = self._resolve(job, template)
        gpus = machine.gpus(self.environ)
        _check_gpus(resolved, gpus)
        secrets = self._secrets(job)
        before = read_status(self.folder)
        how = beginning(before, self._resolved_before(), resolved.config_hash, fresh=self.fresh)
        make_room(self.folder, before, how, now)
        self._make_claims(job)
        around = Surroundings(self.folder, secrets.folder, self.environ, gpus, SETTINGS.gpu_resource)
        _check_pods(job, resolved, around)
        cluster = LocalCluster(around, secrets, machine.threads(self.environ), now)
        write_atomically(self.folder.job_file, job.model_dump_json(by_alias=True, exclude_none=True, indent=2) + "\n")
        write_atomically(self.folder.resolved_file, resolved.model_dump_json(by_alias=True, indent=2) + "\n")
        status = before if how in (Beginning.RESUME, Beginning.DONE) else None
        return Opened(
            job=job.model_copy(update={"status": status}),
            resolved=resolved,
            how=how,
            before=before,
            cluster=cluster,
            notices=tuple(self._notices(job, secrets, queue)),
        )

    def _secrets(self, job: FineTuneJob) -> SecretSource:
        if self.secrets_dir is None:
            return SecretsFromEnvironment(self.folder.root / "secrets")
        source = SecretFolder(self.secrets_dir)
        for name, presence in source.presence(secret_names(job)).items():
            if presence is not Presence.PRESENT:
                raise CannotRunHereError(
                    f"the job names the Secret {name}, and {self.secrets_dir} holds no folder of that name",
                    f"create the folder {self.secrets_dir / name} with one file for each key, for example HF_TOKEN",
                )
        return source

    def _resolve(self, job: FineTuneJob, template: Template) -> ResolvedSpec:
        """The spec as it resolves now. What it resumes from stays what it was when the job ran first."""
        wanted = job.spec.checkpoints.resume_from
        if wanted is None or wanted.job is None or wanted.job == job.metadata.name:
            return resolve(job, template, SETTINGS)
        job_before, resolved_before = read_job(self.folder), self._resolved_before()
        if not self.fresh and job_before and resolved_before and job_before.spec.checkpoints.resume_from == wanted:
            return resolve(_resuming_from(job, resolved_before), template, SETTINGS)
        source = job_named(wanted.job, self.folder)
        if source is None:
            raise CannotRunHereError(
                f"spec.checkpoints.resumeFrom.job: no job {wanted.job} has run with its state in "
                f"{shown(self.folder.root.parent)}",
                "run that job first, or set resumeFrom.uri to the folder of its checkpoints",
            )
        return resolve(job, template, SETTINGS, source)

    def _resolved_before(self) -> ResolvedSpec | None:
        try:
            return ResolvedSpec.model_validate_json(self.folder.resolved_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None

    def _make_claims(self, job: FineTuneJob) -> None:
        for name in claim_names(job):
            self.folder.claim(name).mkdir(parents=True, exist_ok=True)

    def _notices(self, job: FineTuneJob, secrets: SecretSource, queue: str | None) -> list[str]:
        claims = [f"claim {name}: here the folder {self.folder.claim(name)}" for name in sorted(claim_names(job))]
        queued = f"queue {queue}: not used here, the job starts at once" if queue else None
        return [*claims, *filter(None, (secrets.notice(secret_names(job)), queued))]


def _with_identity(job: FineTuneJob, uid: str) -> FineTuneJob:
    """The job as an API server would have taken it in."""
    return job.model_copy(update={"metadata": job.metadata.model_copy(update={"uid": uid, "generation": 1})})


def _with_workspace(job: FineTuneJob) -> FineTuneJob:
    """The job with a workspace that lasts: here it costs nothing, and every run can resume."""
    if job.spec.workspace is not None or job.spec.output is None:
        return job
    workspace = WorkspaceSpec(size=_CLAIM_SIZE)
    return job.model_copy(update={"spec": job.spec.model_copy(update={"workspace": workspace})})


def _resuming_from(job: FineTuneJob, before: ResolvedSpec) -> FineTuneJob:
    """The job with the checkpoints that it resumed from by their URI, whatever has become of the job that made them."""
    source = before.checkpoints.resume_from
    if source is None:
        return job
    secret = SecretRef(name=source.secret) if source.secret else None
    checkpoints = job.spec.checkpoints.model_copy(update={"resume_from": ResumeFrom(uri=source.uri, secret_ref=secret)})
    return job.model_copy(update={"spec": job.spec.model_copy(update={"checkpoints": checkpoints})})


def _without_queue(job: FineTuneJob) -> FineTuneJob:
    """The job without Kueue's label: here is no Kueue that would ever admit it."""
    labels = {name: value for name, value in job.metadata.labels.items() if name != LABEL_QUEUE}
    return job.model_copy(update={"metadata": job.metadata.model_copy(update={"labels": labels})})


def _check_libraries() -> None:
    """Looks for the trainer's libraries without importing them."""
    missing = [name for name in _LIBRARIES if importlib.util.find_spec(name) is None]
    if missing:
        raise CannotRunHereError(
            f"this environment lacks what the trainer needs: {', '.join(missing)}",
            "install it with: pip install 'finetune-operator[trainer]'",
        )


def _check_pods(job: FineTuneJob, resolved: ResolvedSpec, around: Surroundings) -> None:
    """Every stage's pod has what podTemplate gives it, so that the first one tells."""
    manifest = stage_manifests(job, resolved, Stage.PREPARE)[-1]
    pod = Pod("check", job.metadata.namespace or "", job.metadata.uid, Stage.PREPARE, index=0, master_port=0)
    try:
        launch(manifest, pod, around)
    except NotLocalError as error:
        raise CannotRunHereError(
            f"spec.podTemplate: {error}", "run the job on a cluster, or remove it from the podTemplate"
        ) from error


def _check_gpus(resolved: ResolvedSpec, gpus: tuple[str, ...]) -> None:
    wanted = resolved.topology.world_size
    if resolved.topology.device is Device.CPU or wanted <= len(gpus):
        return
    found = f"{len(gpus)} NVIDIA GPU{'s' if len(gpus) > 1 else ''}" if gpus else "no NVIDIA GPU"
    raise CannotRunHereError(
        f"spec.gpus: the job asks for {wanted} GPU{'s' if wanted > 1 else ''}, and this machine has {found}",
        "set spec.training.device: cpu to train on the CPU (for small models)"
        + (f", or spec.gpus: {len(gpus)}" if gpus else ", or run the job where there are GPUs"),
    )
