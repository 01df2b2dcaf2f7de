"""A job and its template become one ResolvedSpec."""

from __future__ import annotations

from finetune_operator.api.resources import FineTuneJob, Template
from finetune_operator.plan.problems import SpecProblem as SpecProblem
from finetune_operator.plan.resolved import ResolvedSpec
from finetune_operator.plan.settings import PlanSettings


def resolve(job: FineTuneJob, template: Template, settings: PlanSettings) -> ResolvedSpec:
    """The job's spec with its template and every default filled in. Raises `SpecProblem`."""
    raise NotImplementedError


def secret_names(job: FineTuneJob) -> frozenset[str]:
    """Every Secret that the job names."""
    raise NotImplementedError


def claim_names(job: FineTuneJob) -> frozenset[str]:
    """Every PersistentVolumeClaim that the job expects to exist."""
    raise NotImplementedError
