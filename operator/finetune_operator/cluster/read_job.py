"""What the CLI reads from a cluster: a job, its templates, its pods. It never writes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime

from kubernetes.aio.client import ApiClient
from kubernetes.aio.config import ConfigException
from kubernetes.aio.config.kube_config import list_kube_config_contexts

from finetune_operator.api.resources import ClusterFineTuneTemplate, FineTuneJob, FineTuneTemplate, Template
from finetune_operator.cluster.client import Client, NotFoundError
from finetune_operator.cluster.config import load, own_namespace
from finetune_operator.cluster.pods import pod_state
from finetune_operator.plan.model.names import LABEL_JOB, stage_name
from finetune_operator.plan.model.observed import PodState
from finetune_operator.runtime.kinds import (
    CLUSTER_TEMPLATES,
    FINETUNE_JOBS,
    PODS,
    TEMPLATES,
    BadNameError,
    controller_of,
)
from finetune_trainer.contract import Stage


@dataclass(frozen=True)
class StagePod:
    """A pod of a job, and the stage that it belongs to."""

    stage: Stage
    state: PodState

    @property
    def created(self) -> datetime:
        return self.state.created


class WriteRefusedError(Exception):
    """The CLI tried to write."""


@dataclass(frozen=True)
class Reader:
    """One namespace of a cluster."""

    client: Client
    namespace: str

    async def job(self, name: str) -> FineTuneJob | None:
        """The job of this name, if there is one."""
        try:
            return FineTuneJob.model_validate(await self.client.get(FINETUNE_JOBS.path(self.namespace, name)))
        except (NotFoundError, BadNameError):
            return None

    async def templates(self) -> tuple[Template, ...]:
        """The cluster's templates, and the namespace's own."""
        shared = await self.client.get(CLUSTER_TEMPLATES.path(None))
        own = await self.client.get(TEMPLATES.path(self.namespace))
        # Items of a list carry neither apiVersion nor kind; the models know their own.
        return (
            *(ClusterFineTuneTemplate.model_validate(one) for one in shared["items"]),
            *(FineTuneTemplate.model_validate(one) for one in own["items"]),
        )

    async def pods(self, job: str) -> list[StagePod]:
        """The job's pods that are still there, oldest first."""
        found = await self.client.get(PODS.path(self.namespace), [("labelSelector", f"{LABEL_JOB}={job}")])
        stages = {stage_name(job, stage): stage for stage in Stage}
        owners = ((controller_of(pod).get("name", ""), pod) for pod in found["items"])
        pods = [StagePod(stages[owner], pod_state(pod)) for owner, pod in owners if owner in stages]
        return sorted(pods, key=lambda pod: pod.created)


@asynccontextmanager
async def reader(context: str | None, namespace: str | None) -> AsyncIterator[Reader]:
    """A reader of the kubeconfig's cluster. Raises `NoClusterError`."""
    configuration = await load(None, context)
    client = Client(ApiClient(configuration), _refuse, lambda _code, _method: None)
    try:
        yield Reader(client, namespace or _namespace_of(context))
    finally:
        await client.close()


def _refuse() -> None:
    raise WriteRefusedError("this command only reads")


def _namespace_of(context: str | None) -> str:
    """The namespace that the kubeconfig's context names, else that of the pod this runs in, else `default`."""
    try:
        contexts, current = list_kube_config_contexts()
    except (ConfigException, OSError):
        return own_namespace()
    chosen = next((one for one in contexts if one["name"] == context), current)
    return str(chosen["context"].get("namespace") or "default")
