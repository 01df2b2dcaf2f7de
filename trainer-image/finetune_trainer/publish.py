"""The publish stage: nothing leaves before it was loaded from disk again and has answered."""

from __future__ import annotations

import json
from typing import Any, Final

from finetune_trainer import artifact, samples
from finetune_trainer.checksums import SUMS_FILE, parse_sums, text_sha256
from finetune_trainer.compatibility import Choice
from finetune_trainer.contract import Artifact, ExitCode, Published, Result, RunConfig, Sample, Stage
from finetune_trainer.errors import Internal, InvalidData
from finetune_trainer.loading import load_base_model
from finetune_trainer.model import fetch_model, load_tokenizer
from finetune_trainer.training.manifest import digest_of
from finetune_trainer.uris import Address, Notify
from finetune_trainer.uris.folder import Folder, open_folder
from finetune_trainer.uris.transfer import download, is_complete, remove_all, upload
from finetune_trainer.workspace import Paths, replacing_folder

_TRIAL: Final = "Hello"
"""Asked when the job names no samples: the model has to answer something."""


def run(config: RunConfig, paths: Paths, notify: Notify) -> Result:
    """Publishes the trained model to the job's output. Doing it again changes nothing. Raises `StageError`."""
    output = open_folder(
        Address(config.output.uri, "spec.output.uri", "output", paths.secret_dir(config.output.secret)), paths
    )
    handover = _handover(config, paths)
    sums = _published_sums(config, output)
    if sums is not None:
        notify(f"{config.output.uri} is complete already")
        compared = [Sample.model_validate(row) for row in json.loads(output.read(artifact.SAMPLES) or b"[]")]
    else:
        _load_weights(config, paths, handover, notify)
        fetch_model(config, paths, notify)
        tokenizer = load_tokenizer(config, paths)
        compared = _try(config, paths, tokenizer, notify)
        folder = artifact.assemble(config, paths, tokenizer, compared)
        sums = upload(folder, output, notify)
    if handover is not None:
        remove_all(handover)
    published = Published(artifacts=_artifacts(config, output, sums), samples=tuple(compared))
    message = f"published to {config.output.uri}"
    return samples.fitted(Result(stage=Stage.PUBLISH, exit_code=ExitCode.OK, message=message), published)


def _handover(config: RunConfig, paths: Paths) -> Folder | None:
    """Where the train stage left the weights when the workspace did not outlive its pod."""
    policy = config.workspace
    if policy.persistent or policy.handover_uri is None:
        return None
    secret = paths.secret_dir(policy.handover_secret)
    return open_folder(Address(policy.handover_uri, "spec.workspace", "output", secret), paths)


def _published_sums(config: RunConfig, output: Folder) -> str | None:
    """The SHA256SUMS of an earlier, complete publication of this very run; None when there is none."""
    if output.read(artifact.RUN) != artifact.run_json(config).encode():
        return None
    stored = (output.read(SUMS_FILE) or b"").decode()
    return stored if stored and is_complete(output, stored) else None


def _load_weights(config: RunConfig, paths: Paths, handover: Folder | None, notify: Notify) -> None:
    """Leaves the train stage's weights in the workspace. Raises `InvalidData` for any others."""
    if config.trained is None:
        raise Internal("the publish stage was started without a trained model")
    if handover is not None and not _is_trained(paths, config.trained.digest):
        with replacing_folder(paths.trained_dir) as folder:
            download(handover, folder, notify)
    if not paths.trained_dir.is_dir():
        raise Internal(f"the train stage left no weights in {paths.trained_dir}")
    notify("checking the trained weights")
    if not _is_trained(paths, config.trained.digest):
        raise InvalidData(
            "the trained weights are not those that the train stage saved: their digest differs",
            field="spec.workspace",
            advice="use a workspace of its own for every job",
        )


def _is_trained(paths: Paths, digest: str) -> bool:
    return paths.trained_dir.is_dir() and any(paths.trained_dir.iterdir()) and digest_of(paths.trained_dir) == digest


def _try(config: RunConfig, paths: Paths, tokenizer: Any, notify: Notify) -> list[Sample]:
    """Answers of the base model and of the artifact as it lies on the disk.

    Raises `Internal` when the artifact does not load, or answers nothing at all.
    """
    choice = Choice.of(config.training, config.topology)
    prompts = config.samples or (_TRIAL,)

    def ask(model: Any, whose: str) -> list[str]:
        notify(f"asking {whose}: {len(prompts)} prompts")
        return choice.objective.answers(model, tokenizer, prompts)

    def load_base() -> Any:
        notify("loading the base model")
        return load_base_model(choice, config, paths)

    trust = config.model.trust_remote_code
    before, after = choice.adaptation.compare(load_base, paths.trained_dir, ask, trust_remote_code=trust)
    if config.samples and not any(after):
        raise Internal("the trained model answers nothing to any of the sample prompts", field="spec.samples.prompts")
    if not config.samples:
        return []
    return [Sample(prompt=p, before=b, after=a) for p, b, a in zip(prompts, before, after, strict=True)]


def _artifacts(config: RunConfig, output: Folder, sums: str) -> tuple[Artifact, ...]:
    """The model as a whole, named by the digest of its SHA256SUMS, and its card."""
    digests, sizes = parse_sums(sums), output.sizes()
    uri = config.output.uri.rstrip("/")
    whole = Artifact(
        kind=artifact.kind_of(config),
        uri=uri,
        sha256=text_sha256(sums),
        bytes=sum(sizes[name] for name in digests),
    )
    card = artifact.CARD
    return whole, Artifact(kind="report", uri=f"{uri}/{card}", sha256=digests[card], bytes=sizes[card])
