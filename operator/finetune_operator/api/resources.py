"""The three kinds as they stand in the API server."""

from __future__ import annotations

from typing import Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from finetune_operator.api.base import StatusModel
from finetune_operator.api.rules import NAME
from finetune_operator.api.spec import JobSpec, TemplateSpec
from finetune_operator.api.status import JobStatus


class ObjectMeta(StatusModel):
    """The part of metav1.ObjectMeta that the operator reads."""

    name: str
    namespace: str | None = None
    uid: str = ""
    generation: int = 0
    resource_version: str = ""
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    deletion_timestamp: str | None = None


class Resource(StatusModel):
    plural: ClassVar[str]
    short_name: ClassVar[str]
    scope: ClassVar[Literal["Namespaced", "Cluster"]] = "Namespaced"
    categories: ClassVar[tuple[str, ...]] = ("ml",)
    metadata: ObjectMeta

    def to_manifest(self) -> dict[str, Any]:
        """The object as YAML would hold it."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class FineTuneJob(Resource):
    """Fine-tunes one model on one dataset."""

    plural: ClassVar[str] = "finetunejobs"
    short_name: ClassVar[str] = "ftj"
    categories: ClassVar[tuple[str, ...]] = ("all", "ml")
    api_version: Literal["finetune-operator.io/v1alpha1"] = "finetune-operator.io/v1alpha1"
    kind: Literal["FineTuneJob"] = "FineTuneJob"
    spec: JobSpec
    status: JobStatus | None = None

    @model_validator(mode="after")
    def _has_a_name_that_children_can_carry(self) -> Self:
        NAME.check(self)
        return self


class FineTuneTemplate(Resource):
    """Defaults that jobs of its namespace share."""

    plural: ClassVar[str] = "finetunetemplates"
    short_name: ClassVar[str] = "ftt"
    api_version: Literal["finetune-operator.io/v1alpha1"] = "finetune-operator.io/v1alpha1"
    kind: Literal["FineTuneTemplate"] = "FineTuneTemplate"
    spec: TemplateSpec = Field(default_factory=TemplateSpec)


class ClusterFineTuneTemplate(Resource):
    """Defaults that jobs of every namespace share."""

    plural: ClassVar[str] = "clusterfinetunetemplates"
    short_name: ClassVar[str] = "cftt"
    scope: ClassVar[Literal["Namespaced", "Cluster"]] = "Cluster"
    api_version: Literal["finetune-operator.io/v1alpha1"] = "finetune-operator.io/v1alpha1"
    kind: Literal["ClusterFineTuneTemplate"] = "ClusterFineTuneTemplate"
    spec: TemplateSpec = Field(default_factory=TemplateSpec)


Template = FineTuneTemplate | ClusterFineTuneTemplate
