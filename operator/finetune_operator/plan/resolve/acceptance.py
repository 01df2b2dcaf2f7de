"""Acceptance: a job is only started when everything it names is there and its spec can be resolved."""

from __future__ import annotations

from typing import Final

from finetune_operator.api.spec import TemplateKind
from finetune_operator.api.status import Reason
from finetune_operator.plan.model.observed import Observed, Presence
from finetune_operator.plan.model.problems import SpecProblem
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.resolve.resolver import resolve
from finetune_operator.plan.resolve.sources import claim_fields, secret_fields

RECHECK_SECONDS: Final = 30.0
"""What is missing may turn up: Secrets and claims are not watched."""


def accepted(observed: Observed, settings: PlanSettings) -> ResolvedSpec:
    """The spec as it was fixed when the job started, else as it resolves now. Raises `SpecProblem`."""
    if observed.resolved is not None:
        return observed.resolved
    if observed.template is None:
        raise _no_template(observed)
    _check_secrets(observed)
    _check_claims(observed)
    return resolve(observed.job, observed.template, settings, observed.resume_from)


def _no_template(observed: Observed) -> SpecProblem:
    wanted, namespace = observed.job.spec.template, observed.job.metadata.namespace
    match wanted.kind:
        case TemplateKind.CLUSTER:
            what, listed = f"ClusterFineTuneTemplate `{wanted.name}`", "kubectl get cftt"
        case TemplateKind.NAMESPACED:
            what = f"FineTuneTemplate `{wanted.name}` in the namespace {namespace}"
            listed = f"kubectl get ftt -n {namespace}"
        case _:
            what = f"template `{wanted.name}`, neither in the namespace {namespace} nor in the cluster"
            listed = f"kubectl get ftt,cftt -n {namespace}"
    return SpecProblem(
        Reason.TEMPLATE_NOT_FOUND,
        f"spec.template.name: there is no {what}. `{listed}` lists those that there are; the job starts by itself "
        "once the template is created",
    )


def _check_secrets(observed: Observed) -> None:
    """One that may not be looked for is taken to be there: else the pod that mounts it says what is missing."""
    namespace = observed.job.metadata.namespace
    for name, field in secret_fields(observed.job).items():
        if observed.secrets.get(name, Presence.PRESENT) is Presence.MISSING:
            raise SpecProblem(
                Reason.SECRET_NOT_FOUND,
                f"{field}: there is no Secret `{name}` in the namespace {namespace}. The job starts by itself "
                f"once it is created: kubectl create secret generic {name} -n {namespace} --from-literal=...",
            )


def _check_claims(observed: Observed) -> None:
    namespace = observed.job.metadata.namespace
    fields = claim_fields(observed.job)
    for name, presence in sorted(observed.claims.items()):
        field = fields.get(name, "spec.workspace")
        if presence is Presence.MISSING:
            raise SpecProblem(
                Reason.CLAIM_NOT_FOUND,
                f"{field}: there is no PersistentVolumeClaim `{name}` in the namespace {namespace}. The job starts by "
                "itself once it is created (kubectl get pvc lists those that there are)",
            )
