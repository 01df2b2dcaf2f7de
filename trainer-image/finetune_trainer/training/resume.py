"""Going on from another job's checkpoint (`checkpoints.resumeFrom`): found, compared, copied. The source is only read.

A step is a place in the data and a state of the optimizer, so what decides these has to be the same: rows and their
order, model, adaptation. What decides the steps to come (how many, learning rate, weight decay) is this job's own.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from pydantic import JsonValue

from finetune_trainer import log
from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import PreparedData, RunConfig
from finetune_trainer.errors import InvalidConfig, NotFound
from finetune_trainer.training import manifest
from finetune_trainer.training.checkpoint import CheckpointStore, Peers
from finetune_trainer.training.manifest import MANIFEST, Manifest, TornError
from finetune_trainer.training.trained import run_digest
from finetune_trainer.uris.address import Address
from finetune_trainer.uris.folder import Folder, open_folder
from finetune_trainer.workspace import Paths

FIELD: Final = "spec.checkpoints.resumeFrom"
WITHOUT_IT: Final = "remove resumeFrom to begin at the model's own weights, or make the specs agree"
_ONE_OF_SEVERAL: Final = re.compile(rf"(checkpoint-(\d+)/){re.escape(MANIFEST)}")
_DECIDE_THE_ORDER: Final = ("seed", "data_seed", "train_sampling_strategy", "dataloader_drop_last", "packing_strategy")
"""Arguments of the trainer. Those that decide the optimizer's state are told apart by `_DECIDE_THE_STATE`."""
_DECIDE_THE_STATE: Final = ("optim", "optim_args")
_BATCH: Final = ("per_device_train_batch_size", "gradient_accumulation_steps")

Notify = Callable[[str], None]


def agrees_on(config: RunConfig, prepared: PreparedData) -> dict[str, JsonValue]:
    """What another job must have in common with this one to go on from its checkpoints, by field of the spec."""
    training = config.training
    compared: dict[str, JsonValue] = {
        "spec.model.uri": config.model.uri,
        "spec.model.revision": prepared.model_revision or config.model.revision,
        "spec.datasets": prepared.digest,
        "spec.training.method": training.method,
        "spec.training.objective": training.objective,
        "spec.training.peftConfig": training.peft_config,
        "spec.training.quantizationConfig": training.quantization_config,
        "spec.training.packing": training.packing and training.max_sequence_length,
    }
    for name in (*_DECIDE_THE_ORDER, *_DECIDE_THE_STATE):
        compared[f"spec.training.trainerConfig.{name}"] = training.trainer_config.get(name)
    return compared


def planned_batch(config: RunConfig) -> int:
    """Rows that one step will consume over all ranks."""
    choice = Choice.of(config.training, config.topology)
    fields = choice.objective.arguments_class().__dataclass_fields__
    given = config.training.trainer_config
    sizes = (given.get(name, fields[name].default) for name in _BATCH)
    return math.prod(int(str(size)) for size in sizes) * config.topology.world_size


@dataclass(frozen=True)
class Found:
    """A checkpoint of another job that looks whole."""

    prefix: str
    """Its folder below the source, with a `/`; empty when the source is the checkpoint."""
    uri: str
    manifest: Manifest

    def check(self, config: RunConfig, prepared: PreparedData) -> None:
        """Raises InvalidConfig that says what differs from this job."""
        facts = self.manifest.facts
        same = facts.run == run_digest(config.model_copy(update={"prepared": prepared}))
        differences = [] if same else _differences(facts.agrees_on, agrees_on(config, prepared))
        if differences:
            raise InvalidConfig(
                f"cannot go on from checkpoint {self.uri}: {'; '.join(differences)}", field=FIELD, advice=WITHOUT_IT
            )
        batch = planned_batch(config)
        if facts.global_batch != batch:
            raise InvalidConfig(
                f"cannot go on from checkpoint {self.uri}: it was made with {facts.global_batch} rows a step, this job "
                f"has {batch}, so that a step would be another place in the data",
                field=FIELD,
                advice="keep per_device_train_batch_size x gradient_accumulation_steps x gpus as it was, or "
                "remove resumeFrom",
            )


def _differences(theirs: Mapping[str, JsonValue] | None, ours: Mapping[str, JsonValue]) -> list[str]:
    """In words. A field that only one side knows comes from a trainer of another version, and is passed over."""
    if theirs is None:
        return ["it does not say what it was made from, and the job that wrote it was another one"]
    different = [name for name in ours if name in theirs and theirs[name] != ours[name]]
    if "spec.datasets" in different:
        different.remove("spec.datasets")
        words = ["it was trained on other rows (spec.datasets, spec.data or the tokenizer differ)"]
    else:
        words = []
    return words + [
        f"{name} is {json.dumps(theirs[name])} there and {json.dumps(ours[name])} here" for name in different
    ]


class CheckpointSource:
    """The checkpoints below a URI, or the one that it names."""

    def __init__(self, folder: Folder, address: Address) -> None:
        self._folder = folder
        self._address = address

    @classmethod
    def of(cls, config: RunConfig, paths: Paths) -> Self | None:
        source = config.checkpoints.resume_from
        if source is None:
            return None
        address = Address(source.uri, FIELD, "checkpoint", paths.secret_dir(source.secret))
        return cls(open_folder(address, paths), address)

    def newest(self, notify: Notify, torn: Collection[str] = ()) -> Found:
        """The newest that looks whole, by its manifest and its files' sizes, but for those that are known as torn.

        Raises NotFound when there is none.
        """
        with self._reading():
            sizes = self._folder.sizes()
            for prefix in _prefixes(sizes):
                if prefix in torn:
                    continue
                try:
                    return self._look(prefix, sizes)
                except TornError as error:
                    _skip(prefix, str(error), notify)
        raise self._nothing(sizes)

    def fetch(self, found: Found, into: Path) -> Manifest:
        """Copy a checkpoint into the folder, as a copy that knows where it is from. Raises TornError."""
        with self._reading():
            for file in found.manifest.files:
                self._folder.get(found.prefix + file.path, into / file.path)
        facts = found.manifest.facts.model_copy(update={"origin": found.uri})
        copy = Manifest(facts=facts, files=found.manifest.files)
        manifest.check_digests(into, copy.files)
        return copy

    def _look(self, prefix: str, sizes: Mapping[str, int]) -> Found:
        content = self._folder.read(prefix + MANIFEST)
        found = manifest.parse(content or b"")
        below = {name.removeprefix(prefix): size for name, size in sizes.items() if name.startswith(prefix)}
        manifest.compare_sizes(below, found.files)
        return Found(prefix, f"{self._address.uri.rstrip('/')}/{prefix}".rstrip("/"), found)

    def _nothing(self, sizes: Mapping[str, int]) -> NotFound:
        what = "holds no checkpoint that is whole" if sizes else "does not exist, or is empty"
        advice = "name a folder that holds checkpoints, such as status.checkpoints of the other job names, or remove it"
        return self._address.missing(what, advice)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except PermissionError as error:
            raise self._address.denied("make it readable for the pod's user (fsGroup, file modes)") from error
        except FileNotFoundError as error:
            raise TornError(f"{error.filename} has gone") from error


def _prefixes(sizes: Collection[str]) -> list[str]:
    """Where checkpoints are, newest first."""
    if MANIFEST in sizes:
        return [""]
    matches = [match for name in sizes if (match := _ONE_OF_SEVERAL.fullmatch(name))]
    return [match[1] for match in sorted(matches, key=lambda match: int(match[2]), reverse=True)]


def _skip(prefix: str, trouble: str, notify: Notify) -> None:
    name = prefix.rstrip("/") or "the checkpoint"
    log.logger().warning("checkpoint skipped", checkpoint=name, reason=trouble)
    notify(f"resumeFrom: skipped {name}: {trouble}")


def adopt(config: RunConfig, paths: Paths, peers: Peers, store: CheckpointStore, notify: Notify) -> None:
    """Every rank: copy the newest whole checkpoint of `resumeFrom` into each pod's workspace, where `store` finds it.

    Pods that share a workspace find the copy of the first. Raises NotFound, InvalidConfig.
    """
    source = CheckpointSource.of(config, paths)
    if source is None or config.prepared is None:
        return
    mine = _adopt_newest(source, config, config.prepared, store, notify) if peers.is_main_process else None
    found = peers.gather(mine)[0]
    if found is not None and peers.is_local_main_process and not store.holds_copy(found.manifest.facts.step):
        store.adopt(found.manifest.facts.step, lambda into: source.fetch(found, into))
    peers.gather(None)


def _adopt_newest(
    source: CheckpointSource, config: RunConfig, prepared: PreparedData, store: CheckpointStore, notify: Notify
) -> Found:
    torn: set[str] = set()
    while True:
        found = source.newest(notify, torn)
        found.check(config, prepared)
        notify(f"fetching {found.uri}")
        try:
            store.adopt(found.manifest.facts.step, lambda into, found=found: source.fetch(found, into))  # type: ignore[misc]
        except TornError as error:
            torn.add(found.prefix)
            _skip(found.prefix, str(error), notify)
        else:
            return found
