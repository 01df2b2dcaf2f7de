"""What holds whatever happens: pods fail in any way, the operator dies anywhere, people do as they please."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import HealthCheck, given, settings
from tests.unit.plan.any_life import AnyLife
from tests.unit.plan.builders import NOON, trained

from finetune_operator.api.status import (
    MAX_ATTEMPTS,
    MAX_CHECKPOINTS,
    MAX_MESSAGE,
    Attempt,
    AttemptEnd,
    Condition,
    ConditionStatus,
    ConditionType,
    JobStatus,
    Metrics,
    Phase,
    ProgressStatus,
    Provenance,
)
from finetune_operator.plan.model import attempts
from finetune_operator.plan.model.observed import PodPhase, PodState
from finetune_operator.plan.policies.failure_cause import cause_of
from finetune_trainer.contract import (
    Artifact,
    CheckpointRef,
    Device,
    ExitCode,
    PreparedData,
    Sample,
    Topology,
)

TestAnyLife = AnyLife.TestCase
TestAnyLife.settings = settings(
    max_examples=100, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@given(
    st.permutations(
        [
            PodState("a", PodPhase.FAILED, NOON, exit_code=76, finished=NOON),
            PodState("b", PodPhase.FAILED, NOON, exit_code=70, finished=NOON),
            PodState("c", PodPhase.FAILED, NOON, exit_code=75, finished=NOON),
            PodState("d", PodPhase.RUNNING, NOON),
        ]
    )
)
def test_the_cause_does_not_depend_on_the_order_of_the_pods(pods: list[PodState]) -> None:
    cause = cause_of(pods)
    assert cause is not None
    assert cause.code is ExitCode.INTERNAL


def test_the_largest_status_stays_below_32_kib() -> None:
    long, name = "é" * (MAX_MESSAGE // 2), "n" * 200
    status = JobStatus(
        phase=Phase.FAILED,
        message=long,
        start_time=NOON,
        completion_time=NOON,
        conditions=tuple(
            Condition(
                type=kind,
                status=ConditionStatus.FALSE,
                reason="RestartsExhausted",
                message=long if kind in (ConditionType.READY, ConditionType.STALLED, ConditionType.FAILED) else name,
                last_transition_time=NOON,
                observed_generation=9,
            )
            for kind in ConditionType
        ),
        progress=ProgressStatus(message=name, percent="100%", eta="23h59m", updated_at=NOON),
        metrics=Metrics(loss="1.234", eval_loss="1.234", base_eval_loss="1.234"),
        dataset=PreparedData(
            format="chat", rows=10**9, train_rows=10**9, eval_rows=0, invalid_reasons=(name,) * 5, digest="d" * 64
        ),
        trained=trained(),
        checkpoints=tuple(
            CheckpointRef(step=step, uri="s3://" + name, verified=True, bytes=10**12) for step in range(MAX_CHECKPOINTS)
        ),
        artifacts=tuple(Artifact(kind="adapter", uri="s3://" + name, sha256="f" * 64, bytes=10**12) for _ in range(3)),
        samples=tuple(Sample(prompt=name, before=name, after=name) for _ in range(5)),
        attempts=tuple(
            attempts.end(
                Attempt(
                    number=number,
                    topology=Topology(nodes=512, processes_per_node=8, device=Device.CUDA),
                    start=NOON,
                    running_since=NOON,
                    resumed_from_step=10**9,
                    checkpoint_step=10**9,
                    last_pod_created=NOON,
                    counted=True,
                    tries=999,
                ),
                NOON,
                AttemptEnd.DEADLINE_EXCEEDED,
                exit_code=71,
                message=long,
            )
            for number in range(MAX_ATTEMPTS)
        ),
        provenance=Provenance(config_hash="c" * 64, template=name, image=name, operator_version="0.1.0"),
    )
    assert len(status.model_dump_json(by_alias=True, exclude_none=True).encode()) < 32 * 1024
