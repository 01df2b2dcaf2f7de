"""The three kinds as they stand in the API server."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field

from finetune_operator.api.base import API_VERSION, StatusModel
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
    metadata: ObjectMeta

    def to_manifest(self) -> dict[str, Any]:
        """The object as YAML would hold it."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class FineTuneJob(Resource):
    """Fine-tunes one model on one dataset."""

    plural: ClassVar[str] = "finetunejobs"
    api_version: Literal["finetune-operator.io/v1alpha1"] = API_VERSION
    kind: Literal["FineTuneJob"] = "FineTuneJob"
    spec: JobSpec
    status: JobStatus | None = None


class FineTuneTemplate(Resource):
    """Defaults that jobs of its namespace share."""

    plural: ClassVar[str] = "finetunetemplates"
    api_version: Literal["finetune-operator.io/v1alpha1"] = API_VERSION
    kind: Literal["FineTuneTemplate"] = "FineTuneTemplate"
    spec: TemplateSpec = Field(default_factory=TemplateSpec)


class ClusterFineTuneTemplate(Resource):
    """Defaults that jobs of every namespace share."""

    plural: ClassVar[str] = "clusterfinetunetemplates"
    api_version: Literal["finetune-operator.io/v1alpha1"] = API_VERSION
    kind: Literal["ClusterFineTuneTemplate"] = "ClusterFineTuneTemplate"
    spec: TemplateSpec = Field(default_factory=TemplateSpec)


Template = FineTuneTemplate | ClusterFineTuneTemplate
