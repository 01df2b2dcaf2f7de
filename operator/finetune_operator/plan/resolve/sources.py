"""The outside things that a job names - URIs, Secrets, claims - each with the field that names it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from finetune_operator.api.resources import FineTuneJob
from finetune_operator.api.spec import JobSpec, SecretRef
from finetune_operator.plan.model.claim_uris import claim_of


@dataclass(frozen=True)
class NamedUri:
    """A URI of the spec."""

    field: str
    uri: str
    secret: str | None

    @property
    def claim(self) -> str | None:
        """The claim that a pvc:// URI names."""
        return claim_of(self.uri)


def uris(spec: JobSpec) -> Iterator[NamedUri]:
    """Every URI that the spec names."""
    yield _named("spec.model", spec.model.uri, spec.model.secret_ref)
    for number, dataset in enumerate(spec.datasets):
        yield _named(f"spec.datasets[{number}]", dataset.uri, dataset.secret_ref)
    if spec.output is not None:
        yield _named("spec.output", spec.output.uri, spec.output.secret_ref)
    if spec.checkpoints.uri is not None:
        yield _named("spec.checkpoints", spec.checkpoints.uri, spec.checkpoints.secret_ref)
    resumed = spec.checkpoints.resume_from
    if resumed is not None and resumed.uri is not None:
        yield _named("spec.checkpoints.resumeFrom", resumed.uri, resumed.secret_ref)


def _named(parent: str, uri: str, secret: SecretRef | None) -> NamedUri:
    return NamedUri(f"{parent}.uri", uri, secret.name if secret else None)


def secret_fields(job: FineTuneJob) -> dict[str, str]:
    """The field that names each Secret, by the Secret's name."""
    named = [(uri.secret, uri.field.removesuffix(".uri") + ".secretRef.name") for uri in uris(job.spec)]
    resumed = job.spec.checkpoints.resume_from
    if resumed is not None and resumed.secret_ref is not None:
        named.append((resumed.secret_ref.name, "spec.checkpoints.resumeFrom.secretRef.name"))
    return {secret: field for secret, field in reversed(named) if secret is not None}


def claim_fields(job: FineTuneJob) -> dict[str, str]:
    """The field that names each claim, by the claim's name."""
    named = [(uri.claim, uri.field) for uri in uris(job.spec)]
    workspace = job.spec.workspace
    if workspace is not None:
        named.append((workspace.claim, "spec.workspace.claim"))
    return {claim: field for claim, field in reversed(named) if claim}
