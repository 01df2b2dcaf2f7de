"""Pods as processes, with real ones."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.unit.local.builders import LAST_WORD, job_manifest, now, open_cluster, pod, start, until

from finetune_operator.local.podspec import NotLocalError
from finetune_operator.plan.model.observed import PodPhase
from finetune_operator.plan.model.plan import Apply, DeleteJob, LabelAttempt, SetSuspend
from finetune_trainer.contract import ExitCode, Stage

SLEEPS = """
import os, signal, sys, time, pathlib
stopped = pathlib.Path(os.environ["FINETUNE_WORKSPACE"]) / "stopped"
def stop(*_):
    stopped.touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, stop)
pathlib.Path(os.environ["FINETUNE_WORKSPACE"], "up").touch()
time.sleep(60)
"""


def workspace(state: Path) -> Path:
    return state / "default/pig/volumes/pig-workspace"


def test_a_pod_that_ends_well_completes_its_job_and_its_result_is_read(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest(LAST_WORD + "end(0, step=7)"))
    job = until(cluster, lambda job: job.complete)
    result = pod(job).result
    assert result is not None
    assert result.step == 7
    assert pod(job).phase is PodPhase.SUCCEEDED


def test_paths_of_the_pod_lead_to_folders_of_the_state(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    script = "import json, os; json.dump(dict(os.environ), open(os.environ['FINETUNE_WORKSPACE'] + '/env.json', 'w'))"
    start(cluster, job_manifest(script))
    until(cluster, lambda job: job.complete)
    env = json.loads((workspace(tmp_path) / "env.json").read_text())
    assert env["FINETUNE_WORKSPACE"] == str(workspace(tmp_path))
    assert Path(env["FINETUNE_RUN_CONFIG"]).read_text() == "{}"
    assert env["FINETUNE_SCRATCH"].startswith(str(tmp_path / "default/pig/pods/pig-train-0-"))
    assert env["FINETUNE_SECRETS"].startswith(str(tmp_path / "default/pig/pods/pig-train-0-"))
    assert (env["JOB_COMPLETION_INDEX"], env["FINETUNE_PROGRESS_PORT"]) == ("0", "0")
    assert (env["MASTER_ADDR"], env["CUDA_VISIBLE_DEVICES"]) == ("127.0.0.1", "")
    assert env["MASTER_PORT"] not in ("0", "29500")
    assert env["HOME"] == os.environ["HOME"]


def test_each_index_gets_a_process_and_all_meet_at_the_same_port(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    script = (
        "import os; e = os.environ;"
        "open(e['FINETUNE_WORKSPACE'] + '/' + e['JOB_COMPLETION_INDEX'], 'w').write(e['MASTER_PORT'])"
    )
    start(cluster, job_manifest(script, pods=2))
    job = until(cluster, lambda job: job.complete)
    assert [pod.index for pod in job.pods] == [0, 1]
    assert (workspace(tmp_path) / "0").read_text() == (workspace(tmp_path) / "1").read_text()


def test_a_final_exit_code_fails_the_job_and_stops_the_other_pods(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    script = LAST_WORD + "import time; time.sleep(60) if os.environ['JOB_COMPLETION_INDEX'] == '1' else end(65)"
    start(cluster, job_manifest(script, pods=2))
    job = until(cluster, lambda job: job.failed and not job.active and not job.terminating)
    assert "exit code 65" in job.failure
    assert [pod.outcome for pod in job.pods] == [ExitCode.INVALID_DATA]


def test_another_failure_gets_a_new_pod_after_a_while(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    script = (
        LAST_WORD
        + "import pathlib; once = pathlib.Path(os.environ['FINETUNE_WORKSPACE'], 'once')\n"
        + "if once.exists(): end(0)\nonce.touch(); end(70)"
    )
    start(cluster, job_manifest(script))
    job = until(cluster, lambda job: job.complete)
    assert [pod.exit_code for pod in job.pods] == [70, 0]


def test_too_many_failures_fail_the_job(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest("raise SystemExit(1)", backoffLimit=0))
    job = until(cluster, lambda job: job.failed)
    assert job.failure.startswith("BackoffLimitExceeded")


def test_without_a_result_the_end_of_the_log_speaks(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest("print('no module named foo'); raise SystemExit(70)", backoffLimit=0))
    job = until(cluster, lambda job: job.failed)
    assert pod(job).last_words == "no module named foo"


def test_suspending_terminates_the_pods_and_resuming_starts_new_ones(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest(SLEEPS))
    until(cluster, lambda _: (workspace(tmp_path) / "up").exists())
    cluster.apply(SetSuspend("pig-train", suspend=True), now())
    job = until(cluster, lambda job: not job.active and not job.terminating)
    assert (job.suspended, job.pods) == (True, ())
    assert (workspace(tmp_path) / "stopped").exists()
    cluster.apply(SetSuspend("pig-train", suspend=False), now())
    assert until(cluster, lambda job: job.active == 1).suspended is False
    cluster.kill(now())


def test_a_pod_that_ignores_sigterm_is_killed_after_its_grace(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    manifest = job_manifest(
        "import os, signal, time, pathlib; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        "pathlib.Path(os.environ['FINETUNE_WORKSPACE'], 'up').touch(); time.sleep(60)"
    )
    manifest["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] = 0.3
    start(cluster, manifest)
    until(cluster, lambda _: (workspace(tmp_path) / "up").exists())
    cluster.apply(SetSuspend("pig-train", suspend=True), now())
    until(cluster, lambda job: not job.active and not job.terminating)
    assert not cluster.running


def test_a_deleted_job_is_gone_with_its_pods(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest("import time; time.sleep(60)"))
    cluster.apply(DeleteJob("pig-train"), now())
    while cluster.stages():
        cluster.tick(now())
    assert not cluster.running


def test_charged_pods_keep_their_attempt(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest("raise SystemExit(70)", backoffLimit=0))
    failed = pod(until(cluster, lambda job: job.failed))
    cluster.apply(LabelAttempt((failed.name,), attempt=3), now())
    assert pod(cluster.stages()[Stage.TRAIN]).attempt == 3


def test_a_cluster_opened_again_finds_the_pods_of_a_killed_runner_disrupted(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest("import time; time.sleep(60)"))
    cluster.kill(now())
    again = open_cluster(tmp_path)
    lost = pod(again.stages()[Stage.TRAIN])
    assert (lost.phase, lost.disrupted, lost.outcome) == (PodPhase.FAILED, True, ExitCode.INTERRUPTED)
    until(again, lambda job: job.active == 1)
    again.kill(now())


def test_applying_a_job_again_changes_nothing(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    manifest = job_manifest("import time; time.sleep(60)")
    start(cluster, manifest)
    before = cluster.stages()
    cluster.apply(Apply(manifest), now())
    assert cluster.stages() == before
    cluster.kill(now())


def test_a_volume_that_only_a_cluster_has_is_refused_by_name(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    manifest = job_manifest("")
    manifest["spec"]["template"]["spec"]["volumes"][1] = {"name": "workspace", "nfs": {"server": "x", "path": "/"}}
    with pytest.raises(NotLocalError, match="volume workspace is a nfs"):
        cluster.apply(Apply(manifest), now())


def test_logs_of_all_attempts_are_kept_one_after_the_other(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest("print('hello'); raise SystemExit(70)", backoffLimit=1))
    until(cluster, lambda job: job.failed)
    text = (tmp_path / "default/pig/logs/train-0.log").read_text()
    assert text.count("hello") == 2
    assert text.count("=== pig-train-0-") == 2
