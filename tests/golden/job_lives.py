"""Jobs' lives as their users see them: after each thing that happens, what is done, told, and changed in the status."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml
from tests.unit.plan.builders import a_checkpoint, a_job, a_report, a_result, trained
from tests.unit.plan.cluster_model import Cluster
from tests.unit.plan.world import World

from finetune_operator.plan.model.names import LABEL_QUEUE
from finetune_operator.plan.model.observed import PodPhase
from finetune_operator.plan.model.plan import Create, DeletePods, Fault, NameTaken, Obstacle, Plan, QueueJob, Refusal
from finetune_operator.plan.planner import stalled
from finetune_trainer.contract import ExitCode, Stage

FOLDER: Final = Path(__file__).parent / "lives"


class Life:
    """One job, and what has been written down of it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.entries: list[dict[str, Any]] = []
        self._before: dict[str, Any] = {}

    def then(self, happened: str) -> None:
        """The cluster's controllers act, the operator looks, and what comes of it is written down."""
        self.world.control()
        self.sees(happened)

    def sees(self, happened: str) -> None:
        """The operator looks before any controller does."""
        self._note(happened, self.world.reconcile())

    def run(self) -> None:
        """Every pod that should be there runs."""
        self.world.control()
        self.world.run_pods()

    def meets(self, obstacle: Obstacle) -> None:
        """What is shown of what keeps a plan from being carried out; the status stays as it is."""
        before = self._before
        self._note(f"{obstacle}", stalled(self.world.observed(), obstacle, self.world.now))
        self._before = before

    def _note(self, happened: str, decided: Plan) -> None:
        status = decided.status.model_dump(mode="json", by_alias=True, exclude_none=True)
        status["conditions"] = {shown["type"]: _condition(shown) for shown in status.get("conditions", ())}
        status["attempts"] = {attempt.pop("number"): attempt for attempt in status["attempts"]}
        entry = {
            "when": happened,
            "at": f"{self.world.now:%H:%M:%S}",
            "does": [_words(action) for action in (*decided.actions, *decided.after_status)],
            "tells": [f"{event.type.value} {event.reason.value}: {event.message}" for event in decided.events],
            "status": _changes(self._before, status),
            "looks again after": decided.requeue_after,
        }
        self._before = status
        self.entries.append({key: value for key, value in entry.items() if value not in (None, [], {})})


def _changes(before: dict[Any, Any], after: dict[Any, Any]) -> dict[Any, Any]:
    """What is new or another, and null for what is gone."""
    changed = {key: value for key, value in after.items() if value != before.get(key)}
    known = {key: before[key] for key, value in changed.items() if isinstance(value, dict) and before.get(key)}
    deeper = {key: _changes(value, after[key]) for key, value in known.items()}
    return changed | deeper | dict.fromkeys(key for key in before if key not in after)


def _condition(shown: dict[str, Any]) -> str:
    told = f": {shown['message']}" if shown["message"] else ""
    return (
        f"{shown['status']} {shown['reason']}{told} (generation {shown['observedGeneration']}, "
        f"since {shown['lastTransitionTime']})"
    )


def _words(action: Any) -> str:
    match action:
        case Create(manifest):
            return f"create {manifest['kind']} {manifest['metadata']['name']}"
        case DeletePods(job, pods):
            return f"delete pods of {job}: {', '.join(pods)}"
        case QueueJob(job, uid, queue):
            return f"queue {job} ({uid}) in {queue}"
        case _:
            return f"{type(action).__name__} {action.job} ({action.uid})"


def success() -> Life:
    life = Life(World())
    world = life.world
    life.then("it is applied")
    life.run()
    world.progress = a_report(world.now, stage=Stage.PREPARE, message="reading the rows", step=None, checkpoints=())
    life.then("prepare reports")
    world.end_well(Stage.PREPARE)
    life.then("prepare has ended well")
    life.then("nothing happens")
    life.run()
    life.then("all pods of the gang run")
    world.pass_time(10)
    world.progress = a_report(
        world.now,
        epoch=1.5,
        eval_loss=1.5,
        base_eval_loss=3.25,
        grad_norm=0.5,
        peak_memory_bytes=2**30,
        trainable_parameters=460_000,
        total_parameters=135_000_000,
        resumed_from_step=0,
        checkpoints=(a_checkpoint(40), a_checkpoint(20)),
    )
    life.then("the trainer reports")
    world.pass_time(61)
    life.then("the trainer is silent for a minute")
    world.progress = None
    done = trained(tokens_per_second=12000.0, peak_memory_bytes=2**31, resumed_from_step=0)
    for index in range(2):
        world.end_pod(Stage.TRAIN, index, ExitCode.OK, result=a_result(Stage.TRAIN, trained=done))
    life.then("training has ended well")
    life.run()
    life.then("publish runs")
    world.end_well(Stage.PUBLISH)
    life.then("publish has ended well")
    life.then("nothing happens")
    metadata = world.job.metadata.model_copy(update={"generation": 2})
    world.job = world.job.model_copy(update={"metadata": metadata})
    life.then("somebody edits it")
    return life


def restarts() -> Life:
    """Of a rank that is evicted, then of one that fails until the budget is used; raised, it goes on."""
    world = World(a_job(runPolicy={"maxRestarts": 1})).reach(Stage.TRAIN)
    life = Life(world)
    world.progress = a_report(world.now, resumed_from_step=0)
    life.then("the trainer reports a checkpoint")
    world.cluster.evict(world.pod(Stage.TRAIN, 1).name)
    life.sees("rank 1 is evicted")
    for _ in range(3):
        world.pass_time(1)
        life.then("a second passes")
    life.run()
    life.then("the second attempt runs")
    for code in (ExitCode.INTERNAL, ExitCode.CANNOT_WRITE):
        world.pass_time(100)
        world.end_pod(Stage.TRAIN, 1, code, "the device is gone")
        world.end_pod(Stage.TRAIN, 0, ExitCode.PEER_LOST)
        life.then(f"rank 1 ends with {code.exit_name}")
        for _ in range(3):
            world.pass_time(10)
            life.then("ten seconds pass")
        life.run()
        life.then("whatever is there runs")
    world.set_policy(max_restarts=3)
    for _ in range(3):
        world.pass_time(1)
        life.then("maxRestarts is 3, and a second passes")
    return life


def suspended() -> Life:
    world = World().reach(Stage.TRAIN)
    life = Life(world)
    world.progress = a_report(world.now, resumed_from_step=0)
    life.then("the trainer reports")
    world.set_policy(suspend=True)
    for _ in range(3):
        world.pass_time(5)
        life.then("suspend is true, and five seconds pass")
    world.set_policy(suspend=False)
    life.then("suspend is false")
    return life


def queued() -> Life:
    """Under Kueue: held until there is quota, preempted, and started over after a fault."""
    cluster = Cluster(kueue=True)
    cluster.quota = False
    world = World(a_job(labels={LABEL_QUEUE: "gpus"}), cluster=cluster)
    life = Life(world)
    life.sees("it is applied with a queue")
    life.run()
    world.end_well(Stage.PREPARE)
    life.then("prepare has ended well")
    life.then("there is no quota")
    cluster.quota = True
    life.then("there is quota")
    life.run()
    life.then("the gang runs")
    cluster.quota = False
    cluster.preempt(world.jobs[Stage.TRAIN])
    for _ in range(2):
        world.pass_time(2)
        life.then("Kueue has preempted it")
    cluster.quota = True
    for _ in range(2):
        world.pass_time(2)
        life.then("there is quota again")
        life.run()
    world.end_pod(Stage.TRAIN, 1, ExitCode.INTERNAL, "the device is gone")
    for _ in range(3):
        life.then("rank 1 ends with an error")
        world.pass_time(2)
    return life


def stuck() -> Life:
    """What keeps pods from starting and from going, and what keeps a plan from being carried out."""
    world = World(a_job(runPolicy={"activeDeadlineSeconds": 3600}))
    life = Life(world)
    life.sees("it is applied")
    for obstacle in (
        Refusal(403, "Forbidden", "exceeded quota: gpus"),
        Refusal(422, "Invalid", 'Job.batch "x" is invalid: spec.template.spec.volumes[0]: Required value'),
        Refusal(422, "Invalid", 'PersistentVolumeClaim "x" is invalid: spec.resources: Forbidden'),
        Fault(3, "500 Internal Server Error"),
    ):
        life.meets(obstacle)
    world.control()
    world.change_pods(Stage.PREPARE, problem="Unschedulable: 0/3 nodes are available")
    life.then("prepare's pod is unschedulable")
    world.change_pods(Stage.PREPARE, problem=None)
    life.run()
    world.end_pod(Stage.PREPARE, 0, ExitCode.CANNOT_WRITE, "the bucket does not answer")
    life.sees("prepare's pod fails")
    life.run()
    world.end_well(Stage.PREPARE)
    life.then("prepare has ended well")
    world.control()
    world.change_pods(Stage.TRAIN, problem="ErrImagePull: no such image")
    life.then("the image is not there")
    world.change_pods(Stage.TRAIN, problem=None)
    life.run()
    life.then("the gang runs")
    world.cluster.lose_node("node-1-0")
    for seconds in (1, 200, 1):
        world.pass_time(seconds)
        life.then("a node is down")
    world.pass_time(3600)
    for _ in range(2):
        life.then("the deadline is over")
        world.pass_time(2)
    return life


def refused() -> Life:
    """Bad data: nothing is tried again, no GPU is taken."""
    world = World()
    life = Life(world)
    life.then("it is applied")
    life.run()
    said = a_result(
        Stage.PREPARE, ExitCode.INVALID_DATA, "no row has a completion", field="spec.datasets[0]", advice="Fix them"
    )
    world.end_pod(Stage.PREPARE, 0, ExitCode.INVALID_DATA, result=said)
    for _ in range(2):
        life.then("prepare has found bad data")
        world.pass_time(1)
    return life


def taken() -> Life:
    """Somebody else's object has the name that the job needs, or an earlier job's, which is going."""
    world = World()
    life = Life(world)
    world.take_name(Stage.PREPARE)
    life.then("somebody else has a Job of the name")
    life.meets(NameTaken("Job", "support-bot-prepare", "FineTuneJob support-bot, uid 1", is_going=True))
    world.give_names_back()
    life.then("it is gone")
    return life


def lost() -> Life:
    """What is deleted or vanishes under the operator's hands."""
    world = World().reach(Stage.TRAIN)
    life = Life(world)
    life.then("the gang runs")
    world.cluster.remove_pod(world.pod(Stage.TRAIN, 1).name)
    for _ in range(3):
        life.then("a pod was removed by force")
        world.pass_time(2)
    life.run()
    world.cluster.pods.clear()
    world.jobs[Stage.TRAIN].complete = True
    for _ in range(3):
        life.then("the Job is complete, and its pods are gone")
        world.pass_time(2)
    life.then("the next attempt is launched")
    life.run()
    life.then("it runs")
    world.change_pods(Stage.TRAIN, phase=PodPhase.FAILED, exit_code=1, result=None, last_words="Traceback\n boom")
    life.then("pods died without a word")
    return life


LIVES: Final[dict[str, Callable[[], Life]]] = {
    life.__name__: life for life in (success, restarts, suspended, queued, stuck, refused, taken, lost)
}


def told(name: str) -> str:
    """The life as YAML."""
    return str(yaml.safe_dump(LIVES[name]().entries, sort_keys=False, width=140, allow_unicode=True))
