"""What a local run remembers of its Jobs and pods between two calls, as JSON in `cluster.json`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from finetune_operator.plan.model.names import LABEL_ATTEMPT
from finetune_operator.plan.model.observed import PodPhase, PodState, StageJob
from finetune_trainer.contract import Result, Stage


class Record(BaseModel):
    model_config = ConfigDict(validate_assignment=True)


class PodRecord(Record):
    """A pod: it is Running until its process has ended."""

    name: str
    index: int
    created: datetime
    node: str | None = None
    """This machine's name."""
    phase: PodPhase = PodPhase.RUNNING
    gone_by: datetime | None = None
    """When it is killed, once it has been asked to stop."""
    exit_code: int | None = None
    finished: datetime | None = None
    termination: str = ""
    """The termination message."""
    disrupted: bool = False
    """The runner went away under it."""

    @property
    def running(self) -> bool:
        return self.phase is PodPhase.RUNNING

    @property
    def deleting(self) -> bool:
        return self.gone_by is not None

    def end(self, code: int, termination: str, now: datetime) -> None:
        self.phase = PodPhase.SUCCEEDED if code == 0 else PodPhase.FAILED
        self.exit_code, self.termination, self.finished = code, termination, now

    def disrupt(self, now: datetime) -> None:
        """What a lost node does to a pod."""
        self.phase, self.disrupted, self.finished = PodPhase.FAILED, True, now

    def observed(self) -> PodState:
        try:
            result = Result.model_validate_json(self.termination)
        except ValidationError:
            result = None
        return PodState(
            name=self.name,
            phase=self.phase,
            created=self.created,
            index=self.index,
            node=self.node,
            started=self.created,
            gone_by=self.gone_by,
            exit_code=self.exit_code,
            finished=self.finished,
            result=result,
            last_words="" if result else self.termination,
            disrupted=self.disrupted,
        )


class JobRecord(Record):
    """A batch/v1 Job."""

    name: str
    stage: Stage
    uid: str
    created: datetime
    manifest: dict[str, Any]
    complete: bool = False
    failure: str | None = None
    """Why it fails. It has failed once none of its pods runs any more."""
    deleting: bool = False
    """It goes once none of its pods runs any more."""
    master_port: int | None = None
    """Port of the rendezvous of the pods that run now."""
    pods: list[PodRecord] = Field(default_factory=list)
    pods_made: int = 0

    @property
    def completions(self) -> int:
        return int(self.manifest["spec"].get("completions", 1))

    @property
    def attempt(self) -> int:
        return int(self.manifest["metadata"]["labels"].get(LABEL_ATTEMPT, 1))

    @property
    def makes_pods(self) -> bool:
        return not (self.complete or self.failure is not None or self.deleting)

    @property
    def running(self) -> list[PodRecord]:
        return [pod for pod in self.pods if pod.running]

    def observed(self) -> StageJob:
        running = self.running
        failed = self.failure is not None and not running
        return StageJob(
            name=self.name,
            uid=self.uid,
            created=self.created,
            attempt=self.attempt,
            completions=self.completions,
            active=len(running),
            complete=self.complete,
            failed=failed,
            failure=(self.failure or "") if failed else "",
            deleting=self.deleting,
            pods=tuple(pod.observed() for pod in self.pods),
        )


class ClusterRecord(Record):
    version: Literal[2]
    """Of what a state folder holds."""
    jobs: dict[str, JobRecord] = Field(default_factory=dict)
