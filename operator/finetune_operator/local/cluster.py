"""Plays the cluster for the planner: objects are files, claims are folders, pods are processes of this machine."""

from __future__ import annotations

import shutil
import socket
import uuid
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from finetune_operator.api.resources import FineTuneJob, Template
from finetune_operator.local import controller
from finetune_operator.local.folders import JobFolder, write_atomically
from finetune_operator.local.other_runs import job_named
from finetune_operator.local.podspec import Launch, NotLocalError, Pod, Surroundings, launch
from finetune_operator.local.process import ATTEMPT_MARK, PodProcess
from finetune_operator.local.records import ClusterRecord, JobRecord, PodRecord
from finetune_operator.local.secret_source import SecretSource
from finetune_operator.plan.manifests.stages import parse_resolved
from finetune_operator.plan.model.names import LABEL_JOB, LABEL_STAGE, resolved_name
from finetune_operator.plan.model.observed import Observed, PodPhase, Presence, StageJob
from finetune_operator.plan.model.plan import Action, Create, DeleteJob, DeletePods, EndJob, QueueJob
from finetune_operator.plan.model.resolved import ResolvedSpec
from finetune_operator.plan.resolve.resolver import claim_names, secret_names
from finetune_trainer.contract import PROGRESS_FILE, Progress, Stage

_ENDED: Final = "DeadlineExceeded: Job was active longer than specified deadline"
"""The Job controller's words for a Job that `EndJob` ends."""


class LocalCluster:
    """One job's objects and pods. `observe` and `apply` are for the planner, `tick` is the rest of a cluster.

    The state outlives the object: a cluster that is opened again finds the pods of a runner that was killed
    disrupted, as pods of a lost node are.
    """

    def __init__(self, around: Surroundings, secrets: SecretSource, threads: int, now: datetime) -> None:
        self._around = around
        self._folder: JobFolder = around.folder
        self._secrets = secrets
        self._threads = threads
        self._processes: dict[str, PodProcess] = {}
        self._record = _load(self._folder)
        self._remove_pods_dir()
        self._disrupt_all(now)
        self._save()

    @property
    def running(self) -> bool:
        """Whether any process runs."""
        return bool(self._processes)

    def observe(self, job: FineTuneJob, template: Template | None) -> Observed:
        """The job and its surroundings, as the operator would gather them."""
        earlier = job.spec.checkpoints.resume_from
        return Observed(
            job=job,
            template=template,
            secrets=self._secrets.presence(secret_names(job)),
            claims=dict.fromkeys(claim_names(job), Presence.PRESENT),
            resolved=self.resolved(job.metadata.name),
            stages=self.stages(),
            resume_from=job_named(earlier.job, self._folder) if earlier and earlier.job else None,
            progress=self._progress(),
        )

    def stages(self) -> dict[Stage, StageJob]:
        """The Jobs with their pods."""
        return {record.stage: record.observed() for record in self._record.jobs.values()}

    def resolved(self, job_name: str) -> ResolvedSpec | None:
        """The spec as it was fixed when the job started."""
        folder = self._folder.config(resolved_name(job_name))
        if not folder.is_dir():
            return None
        return parse_resolved({file.name: file.read_text(encoding="utf-8") for file in folder.iterdir()})

    def apply(self, action: Action, now: datetime) -> None:
        """Carries out one of the plan's actions. Raises `NotLocalError` for what only a cluster can do."""
        match action:
            case Create(manifest):
                self._create(manifest, now)
            case DeleteJob(name, uid) if self._holds(name, uid):
                self._record.jobs[name].deleting = True
            case EndJob(name, uid) if self._holds(name, uid):
                self._end_job(self._record.jobs[name])
            case DeletePods(name, pods) if name in self._record.jobs:
                self._delete_pods(self._record.jobs[name], pods, now)
            case QueueJob(name, _, queue):
                raise NotLocalError(f"the Job {name} is to wait in the queue {queue}, which only a cluster has")
        self._save()

    def tick(self, now: datetime) -> bool:
        """Notes what has ended and does what the Job controller would do. True when anything changed."""
        changed = self._reap(now)
        for job in list(self._record.jobs.values()):
            changed = self._control(job, now) or changed
        if changed:
            self._save()
        return changed

    def kill(self, now: datetime) -> None:
        """Ends every process at once; their pods are disrupted."""
        for process in self._processes.values():
            process.kill()
        self._processes.clear()
        self._disrupt_all(now)
        self._remove_pods_dir()
        self._save()

    def last_failure(self) -> PodRecord | None:
        """The pod that failed last, for its exit code and words."""
        failed = [pod for job in self._record.jobs.values() for pod in job.pods if pod.exit_code and pod.finished]
        return max(failed, key=lambda pod: pod.finished or pod.created, default=None)

    def _disrupt_all(self, now: datetime) -> None:
        """What the loss of the node does: pods that were being taken down are gone, the others disrupted."""
        for job in self._record.jobs.values():
            job.pods = [pod for pod in job.pods if not (pod.running and pod.deleting)]
            for pod in job.running:
                pod.disrupt(now)

    def _create(self, manifest: Mapping[str, Any], now: datetime) -> None:
        """What has the name already is this job's own, since nothing else makes objects here: it stays as it is."""
        name = manifest["metadata"]["name"]
        match manifest["kind"]:
            case "ConfigMap" if not self._folder.config(name).is_dir():
                for key, text in manifest.get("data", {}).items():
                    write_atomically(self._folder.config(name) / key, text)
            case "PersistentVolumeClaim":
                self._folder.own_claim(name).mkdir(parents=True, exist_ok=True)
            case "Job" if name not in self._record.jobs:
                self._add_job(dict(manifest), now)

    def _add_job(self, manifest: dict[str, Any], now: datetime) -> None:
        metadata = manifest["metadata"]
        job = JobRecord(
            name=metadata["name"],
            stage=Stage(metadata["labels"][LABEL_STAGE]),
            uid=str(uuid.uuid4()),
            created=now.replace(microsecond=0),
            manifest=manifest,
        )
        launch(manifest, self._pod(job, 0, 0), self._around)
        self._record.jobs[job.name] = job

    def _holds(self, name: str, uid: str) -> bool:
        return name in self._record.jobs and self._record.jobs[name].uid == uid

    @staticmethod
    def _end_job(job: JobRecord) -> None:
        if not job.complete and job.failure is None:
            job.failure = _ENDED

    def _delete_pods(self, job: JobRecord, names: tuple[str, ...], now: datetime) -> None:
        """Pods that have failed go at once, those that run when they have stopped."""
        self._stop([pod for pod in job.running if pod.name in names], now)
        job.pods = [pod for pod in job.pods if pod.name not in names or pod.phase is not PodPhase.FAILED]

    def _stop(self, pods: list[PodRecord], now: datetime) -> None:
        for pod in pods:
            if not pod.deleting:
                process = self._processes[pod.name]
                pod.gone_by = now + timedelta(seconds=process.launch.grace_seconds)
                process.terminate()

    def _reap(self, now: datetime) -> bool:
        ended = {name: code for name, process in self._processes.items() if (code := process.poll()) is not None}
        for name, code in ended.items():
            process = self._processes.pop(name)
            job, pod = self._find(name)
            pod.end(code, _termination(process, code), now)
            if pod.deleting and code != 0:
                job.pods.remove(pod)
            shutil.rmtree(process.launch.folder, ignore_errors=True)
        return bool(ended)

    def _control(self, job: JobRecord, now: datetime) -> bool:
        match controller.verdict(job, now):
            case controller.Start(indexes):
                for index in indexes:
                    self._start(job, index, now)
            case controller.Stop():
                self._stop(job.running, now)
            case controller.Complete():
                job.complete = True
            case controller.FailJob(message):
                job.failure = message
            case None:
                if not (job.deleting and not job.running):
                    return False
                del self._record.jobs[job.name]
        return True

    def _start(self, job: JobRecord, index: int, now: datetime) -> None:
        if job.master_port is None or not job.running:
            job.master_port = _free_port()
        pod = self._pod(job, index, job.master_port)
        started = launch(job.manifest, pod, self._around)
        started.prepare()
        log = self._folder.log(job.stage, index)
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as output:
            output.write(f"{ATTEMPT_MARK}{pod.name} {now:%Y-%m-%dT%H:%M:%SZ}\n")
        self._processes[pod.name] = PodProcess(started, log)
        created = now.replace(microsecond=0)
        job.pods.append(PodRecord(name=pod.name, index=index, created=created, node=socket.gethostname()))
        job.pods_made += 1

    def _pod(self, job: JobRecord, index: int, master_port: int) -> Pod:
        owner = job.manifest["metadata"]
        return Pod(
            name=f"{job.name}-{index}-{job.uid[:5]}{job.pods_made}",
            namespace=owner.get("namespace", "default"),
            uid=f"{job.uid}-{job.pods_made}",
            stage=job.stage,
            index=index,
            master_port=master_port,
            threads=max(1, self._threads // self._process_count(job)),
        )

    def _process_count(self, job: JobRecord) -> int:
        """How many processes share the machine while this Job runs."""
        labels = job.manifest["metadata"]["labels"]
        resolved = self.resolved(labels.get(LABEL_JOB, "")) if job.stage is Stage.TRAIN else None
        return resolved.topology.world_size if resolved else job.completions

    def _progress(self) -> Progress | None:
        """What the first pod of the stage that runs reported last."""
        for job in self._record.jobs.values():
            for pod in job.running:
                if pod.index == 0:
                    return _read_progress(self._processes[pod.name].launch)
        return None

    def _find(self, pod_name: str) -> tuple[JobRecord, PodRecord]:
        return next((job, pod) for job in self._record.jobs.values() for pod in job.pods if pod.name == pod_name)

    def _remove_pods_dir(self) -> None:
        shutil.rmtree(self._folder.pods_dir, ignore_errors=True)

    def _save(self) -> None:
        write_atomically(self._folder.cluster_file, self._record.model_dump_json(exclude_none=True, indent=1))


def _load(folder: JobFolder) -> ClusterRecord:
    """What another version of the state holds is not read but planned again, from the status and the checkpoints."""
    try:
        return ClusterRecord.model_validate_json(folder.cluster_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except ValidationError:
        shutil.rmtree(folder.configs_dir, ignore_errors=True)
    return ClusterRecord(version=2)


def _termination(process: PodProcess, code: int) -> str:
    """The termination message; without one, a failed pod's last words."""
    log: Path = process.launch.termination_log
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return text or (process.last_words() if code else "")


def _read_progress(running: Launch) -> Progress | None:
    try:
        return Progress.model_validate_json((running.progress_dir / PROGRESS_FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
