"""Jobs whose stages are played by `fake_stage.py`: no torch, no object store, over in seconds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cluster.support import fake_stage
from tests.cluster.support.jobs import Jobs, Manifest, job, merged
from tests.cluster.support.waiting import until

PROGRAM = Path(fake_stage.__file__)
OK, HOLD, DEAF = "ok", "hold", "deaf"
Parts = dict[str, str | int]
"""What is played, by stage (`train`) or by stage and attempt (`train-1`); what is not named ends well."""


def fake(name: str, parts: Parts | None = None, result: Manifest | None = None, **spec: Any) -> Manifest:
    """A small job with a claim of its own. `result` is merged into every stage's Result, `spec` over the spec."""
    manifest = job(name, "s3://bucket/model", "s3://bucket/rows.jsonl", podTemplate=pod_template(parts or {}, result))
    return merged(manifest, {"spec": spec})


def pod_template(parts: Parts, result: Manifest | None = None) -> Manifest:
    """The program in place of the trainer, without Python's site packages."""
    script = json.dumps({"parts": parts, "result": result or {}})
    container = {
        "name": "trainer",
        "command": ["python", "-I", "-S", str(PROGRAM)],
        "env": [{"name": fake_stage.SCRIPT, "value": script}],
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
    }
    return {"spec": {"terminationGracePeriodSeconds": 10, "containers": [container]}}


def running(jobs: Jobs, name: str, stage: str, count: int = 1) -> list[Manifest]:
    """The stage's pods, once so many of them run."""

    def found() -> list[Manifest] | None:
        pods = [pod for pod in jobs.pods(name, stage) if _plays(pod)]
        return pods if len(pods) == count else None

    return until(found, f"{count} pods of {name} play {stage}", seconds=90, story=lambda: jobs.story(name))


def end(jobs: Jobs, pod: Manifest, code: int = 0) -> None:
    """Lets a stage that holds end with this exit code."""
    name = pod["metadata"]["name"]
    jobs.cluster.kubectl("exec", name, "-n", jobs.namespace, "--", "sh", "-c", f"echo {code} > {fake_stage.END}")


def _plays(pod: Manifest) -> bool:
    going = "deletionTimestamp" in pod["metadata"]
    return pod["status"]["phase"] == "Running" and not going
