"""Pods as processes, with real ones."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from tests.unit.local.builders import LAST_WORD, gone, job_manifest, now, open_cluster, pod, start, until

from finetune_operator.local.podspec import NotLocalError
from finetune_operator.plan.model.names import LABEL_ATTEMPT
from finetune_operator.plan.model.observed import PodPhase, StageJob
from finetune_operator.plan.model.plan import Create, DeleteJob, DeletePods, EndJob, QueueJob
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


def alive(job: StageJob) -> int:
    """Pods that run and may go on."""
    return sum(not pod.ended and not pod.deleting for pod in job.pods)


def leaving(job: StageJob) -> int:
    """Pods that were told to stop."""
    return sum(not pod.ended and pod.deleting for pod in job.pods)


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
    script = (
        "import json, os; env = dict(os.environ); env['config'] = open(env['FINETUNE_RUN_CONFIG']).read();"
        "json.dump(env, open(env['FINETUNE_WORKSPACE'] + '/env.json', 'w'))"
    )
    start(cluster, job_manifest(script))
    until(cluster, lambda job: job.complete)
    env = json.loads((workspace(tmp_path) / "env.json").read_text())
    assert env["FINETUNE_WORKSPACE"] == str(workspace(tmp_path))
    assert env["config"] == "{}"
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
    job = until(cluster, lambda job: job.failed and not alive(job) and not leaving(job))
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


def test_a_deleted_job_stays_until_its_pods_have_stopped_and_gives_its_name_to_the_next(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest(SLEEPS))
    job = until(cluster, lambda _: (workspace(tmp_path) / "up").exists())
    cluster.apply(DeleteJob(job.name, job.uid), now())
    cluster.tick(now())
    going = cluster.stages()[Stage.TRAIN]
    assert (going.deleting, alive(going), leaving(going)) == (True, 0, 1)
    gone_by = pod(going).gone_by
    assert gone_by is not None
    assert 0 < (gone_by - now()).total_seconds() <= 5
    cluster.apply(Create(job_manifest(SLEEPS)), now())
    assert cluster.stages()[Stage.TRAIN].uid == job.uid
    gone(cluster)
    assert not cluster.running
    assert (workspace(tmp_path) / "stopped").exists()
    second = job_manifest(SLEEPS)
    second["metadata"]["labels"] = {**second["metadata"]["labels"], LABEL_ATTEMPT: "2"}
    start(cluster, second)
    again = cluster.stages()[Stage.TRAIN]
    assert (again.attempt, again.deleting, alive(again)) == (2, False, 1)
    assert again.uid != job.uid
    assert pod(again).name != pod(going).name
    cluster.kill(now())


def test_an_order_for_a_job_that_has_been_replaced_does_nothing(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest(SLEEPS))
    before = cluster.stages()
    cluster.apply(DeleteJob("pig-train", "another"), now())
    cluster.apply(EndJob("pig-train", "another"), now())
    cluster.tick(now())
    assert cluster.stages() == before
    cluster.kill(now())


def test_a_job_that_is_ended_has_failed_once_its_pods_have_stopped(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    rank_1_sleeps = SLEEPS.replace("time.sleep(60)", "os.environ['JOB_COMPLETION_INDEX'] == '1' and time.sleep(60)")
    start(cluster, job_manifest(rank_1_sleeps, pods=2))
    job = until(cluster, lambda job: alive(job) == 1 and (workspace(tmp_path) / "up").exists())
    cluster.apply(EndJob(job.name, job.uid), now())
    cluster.tick(now())
    ending = cluster.stages()[Stage.TRAIN]
    assert (ending.failed, alive(ending), leaving(ending)) == (False, 0, 1)
    ended = until(cluster, lambda job: job.failed)
    assert ended.failure.startswith("DeadlineExceeded")
    assert not cluster.running
    assert pod(ended).index == 0
    cluster.tick(now())
    assert not cluster.running


def test_a_job_that_is_complete_cannot_be_ended(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest(LAST_WORD + "end(0)"))
    job = until(cluster, lambda job: job.complete)
    cluster.apply(EndJob(job.name, job.uid), now())
    assert not cluster.stages()[Stage.TRAIN].failed


def test_deleted_pods_are_replaced_once_they_have_stopped(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest(SLEEPS))
    job = until(cluster, lambda _: (workspace(tmp_path) / "up").exists())
    first = pod(job)
    cluster.apply(DeletePods(job.name, (first.name,)), now())
    cluster.tick(now())
    assert pod(cluster.stages()[Stage.TRAIN]).deleting
    again = until(cluster, lambda job: alive(job) == 1)
    assert (workspace(tmp_path) / "stopped").exists()
    assert pod(again).name != first.name
    assert again.uid == job.uid
    cluster.kill(now())


def test_a_deleted_pod_that_had_failed_is_gone_at_once(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest("raise SystemExit(70)", backoffLimit=0))
    job = until(cluster, lambda job: job.failed)
    cluster.apply(DeletePods(job.name, (pod(job).name,)), now())
    assert cluster.stages()[Stage.TRAIN].pods == ()


def test_a_queue_is_only_to_be_had_in_a_cluster(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    with pytest.raises(NotLocalError, match=r"Job pig-train .* queue gpus, which only a cluster has"):
        cluster.apply(QueueJob("pig-train", "uid", "gpus"), now())


def test_a_pod_runs_on_this_machine_from_the_start(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest(SLEEPS))
    only = pod(cluster.stages()[Stage.TRAIN])
    assert (only.node, only.ran, only.gone_by) == (socket.gethostname(), True, None)
    assert (only.created.microsecond, only.created <= now()) == (0, True)
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
    cluster.apply(DeleteJob("pig-train", cluster.stages()[Stage.TRAIN].uid), now())
    gone(cluster)
    assert not cluster.running


def test_a_cluster_opened_again_finds_the_pods_of_a_killed_runner_disrupted(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest("import time; time.sleep(60)"))
    cluster.kill(now())
    again = open_cluster(tmp_path)
    lost = pod(again.stages()[Stage.TRAIN])
    assert (lost.phase, lost.disrupted, lost.outcome) == (PodPhase.FAILED, True, ExitCode.INTERRUPTED)
    until(again, lambda job: alive(job) == 1)
    again.kill(now())


def test_jobs_of_another_version_of_the_state_are_planned_again(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest("import time; time.sleep(60)"))
    cluster.kill(now())
    file = tmp_path / "default/pig/cluster.json"
    file.write_text(file.read_text().replace('"version": 2', '"version": 1'))
    (tmp_path / "default/pig/configs/pig-resolved").mkdir(parents=True)
    (tmp_path / "default/pig/configs/pig-resolved/resolved.json").write_text("{}")
    again = open_cluster(tmp_path)
    assert again.stages() == {}
    assert again.resolved("pig") is None


def test_a_config_map_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    for text in ("first", "second"):
        config = {"kind": "ConfigMap", "metadata": {"name": "pig-resolved"}, "data": {"resolved.json": text}}
        cluster.apply(Create(config), now())
    assert (tmp_path / "default/pig/configs/pig-resolved/resolved.json").read_text() == "first"


def test_creating_a_job_again_changes_nothing(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    manifest = job_manifest("import time; time.sleep(60)")
    start(cluster, manifest)
    before = cluster.stages()
    cluster.apply(Create(manifest), now())
    assert cluster.stages() == before
    cluster.kill(now())


def test_a_volume_that_only_a_cluster_has_is_refused_by_name(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    manifest = job_manifest("")
    manifest["spec"]["template"]["spec"]["volumes"][1] = {"name": "workspace", "nfs": {"server": "x", "path": "/"}}
    with pytest.raises(NotLocalError, match="volume workspace is a nfs"):
        cluster.apply(Create(manifest), now())


def test_logs_of_all_attempts_are_kept_one_after_the_other(tmp_path: Path) -> None:
    cluster = open_cluster(tmp_path)
    start(cluster, job_manifest("print('hello'); raise SystemExit(70)", backoffLimit=1))
    until(cluster, lambda job: job.failed)
    text = (tmp_path / "default/pig/logs/train-0.log").read_text()
    assert text.count("hello") == 2
    assert text.count("=== pig-train-0-") == 2
