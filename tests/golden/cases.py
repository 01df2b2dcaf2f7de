"""The golden cases: a job as a user writes it (`given.yaml`), and what it becomes in a cluster (`expected/`)."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, Final

import yaml
from tests.unit.plan.builders import prepared, trained

from finetune_operator import builtin
from finetune_operator.api.resources import ClusterFineTuneTemplate, FineTuneJob, FineTuneTemplate, Template
from finetune_operator.plan.manifests.stages import resolved_config_map, stage_manifests
from finetune_operator.plan.model.names import ANNOTATION_RUN_CONFIG
from finetune_operator.plan.model.plan import Manifest
from finetune_operator.plan.model.settings import PlanSettings
from finetune_operator.plan.resolve.resolver import resolve
from finetune_trainer.contract import Stage

HERE: Final = Path(__file__).parent
CASES: Final = tuple(sorted(path.parent for path in HERE.glob("*/given.yaml")))


def expected(case: Path) -> dict[str, str]:
    """The text of each expected file, by its name."""
    given = yaml.safe_load((case / "given.yaml").read_text(encoding="utf-8"))
    job = FineTuneJob.model_validate(given["job"])
    settings = PlanSettings.model_validate(given.get("settings", {}))
    resolved = resolve(job, _template(given, job), settings)
    files: dict[str, tuple[Manifest, ...]] = {"resolved": (resolved_config_map(job, resolved),)}
    for stage in Stage:
        files[stage.value] = stage_manifests(
            job,
            resolved,
            stage,
            prepared=None if stage is Stage.PREPARE else prepared(),
            trained=trained() if stage is Stage.PUBLISH else None,
        )
    return {f"{name}.yaml": _text(manifests) for name, manifests in files.items()}


def _template(given: dict[str, Any], job: FineTuneJob) -> Template:
    if "template" not in given:
        return next(one for one in builtin.templates() if one.metadata.name == job.spec.template.name)
    kind = FineTuneTemplate if given["template"]["kind"] == "FineTuneTemplate" else ClusterFineTuneTemplate
    return kind.model_validate(given["template"])


class _Readable(yaml.SafeDumper):
    """Writes text of several lines as such, and repeats instead of referring."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _string(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _string)


def _text(manifests: tuple[Manifest, ...]) -> str:
    documents = [_with_readable_json(manifest) for manifest in manifests]
    return str(yaml.dump_all(documents, Dumper=_Readable, sort_keys=False, width=120, allow_unicode=True))


def _with_readable_json(manifest: Manifest) -> Manifest:
    """The JSON in a ConfigMap and in the pods' annotation over several lines."""
    manifest = copy.deepcopy(manifest)
    if manifest["kind"] == "ConfigMap":
        manifest["data"] = {name: _indented(text) for name, text in manifest["data"].items()}
    if manifest["kind"] == "Job":
        annotations = manifest["spec"]["template"]["metadata"]["annotations"]
        annotations[ANNOTATION_RUN_CONFIG] = _indented(annotations[ANNOTATION_RUN_CONFIG])
    return manifest


def _indented(text: str) -> str:
    return json.dumps(json.loads(text), indent=2) + "\n"
