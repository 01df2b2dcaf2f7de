"""The CustomResourceDefinitions, as the API server will take them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune_operator.api.crd import definitions, write
from finetune_operator.api.status import ConditionType, Phase

CRDS = Path(__file__).parents[3] / "crds"
ALL = definitions()
JOB = next(one for one in ALL if one["spec"]["names"]["kind"] == "FineTuneJob")
VERSION = JOB["spec"]["versions"][0]
SCHEMA = VERSION["schema"]["openAPIV3Schema"]


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every schema below this one, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}.*")


@pytest.mark.parametrize("definition", ALL, ids=lambda one: one["spec"]["names"]["kind"])
def test_schemas_are_structural(definition: dict[str, Any]) -> None:
    root = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, node in nodes(root):
        assert not {"$ref", "$defs", "anyOf", "oneOf", "allOf", "const", "title"} & set(node), path
        free = node.get("x-kubernetes-int-or-string") or node.get("x-kubernetes-preserve-unknown-fields")
        assert free or isinstance(node.get("type"), str), path


def test_every_field_of_the_spec_is_explained() -> None:
    untold = [
        path
        for path, node in nodes(SCHEMA["properties"]["spec"], "spec")
        if not node.get("description") and not path.endswith(("[]", ".*"))
    ]
    assert untold == []


def test_what_is_committed_is_what_the_models_say(tmp_path: Path) -> None:
    for made in write(tmp_path):
        committed = CRDS / made.name
        assert made.read_text() == committed.read_text(), "run `make generate`"
        assert yaml.safe_load(made.read_text())["metadata"]["name"].startswith(made.stem)


def test_jobs_are_found_under_short_names_and_categories() -> None:
    names = JOB["spec"]["names"]
    assert names["shortNames"] == ["ftj"]
    assert set(names["categories"]) == {"all", "ml"}


def test_the_columns_lead_to_fields_that_exist() -> None:
    paths = {path for path, _ in nodes(SCHEMA)}
    for column in VERSION["additionalPrinterColumns"]:
        path = column["jsonPath"]
        assert path in paths or path == ".metadata.creationTimestamp", column["name"]


def test_jobs_are_found_by_phase_and_reason() -> None:
    paths = [one["jsonPath"] for one in VERSION["selectableFields"]]
    assert paths == [".status.phase", ".status.reason"]
    assert set(paths) <= {path for path, _ in nodes(SCHEMA)}


def test_the_status_is_a_subresource_and_its_conditions_are_a_map() -> None:
    assert VERSION["subresources"] == {"status": {}}
    conditions = SCHEMA["properties"]["status"]["properties"]["conditions"]
    assert (conditions["x-kubernetes-list-type"], conditions["x-kubernetes-list-map-keys"]) == ("map", ["type"])


def test_phases_and_conditions_are_enumerated() -> None:
    status = SCHEMA["properties"]["status"]["properties"]
    assert status["phase"]["enum"] == [phase.value for phase in Phase]
    kinds = status["conditions"]["items"]["properties"]["type"]["enum"]
    assert kinds == [kind.value for kind in ConditionType]


def test_the_spec_is_fixed_once_the_job_has_started_but_for_the_run_policy_and_the_samples() -> None:
    rules = [rule["rule"] for rule in SCHEMA["x-kubernetes-validations"]]
    fields = SCHEMA["properties"]["spec"]["properties"]
    free = {field for field in fields if not any(f"oldSelf.spec.{field})" in rule for rule in rules)}
    assert free == {"runPolicy", "samples"}


def test_who_changes_a_field_that_is_fixed_reads_its_name() -> None:
    (words,) = [rule["messageExpression"] for rule in SCHEMA["x-kubernetes-validations"] if "messageExpression" in rule]
    fields = SCHEMA["properties"]["spec"]["properties"]
    assert {field for field in fields if f"'{field}'" in words} == set(fields) - {"runPolicy", "samples"}


def test_a_status_write_has_the_api_server_look_at_little_of_the_spec() -> None:
    """Every rule of root and spec is evaluated at each write, and each field that one names is a copy of a schema."""
    spec = SCHEMA["properties"]["spec"]
    rules = [rule["rule"] for rule in (*SCHEMA["x-kubernetes-validations"], *spec["x-kubernetes-validations"])]
    fixed = next(rule for rule in rules if "oldSelf" in rule)
    assert len(rules) == 3
    assert "startTime) || self.spec == oldSelf.spec || (" in fixed


def test_every_rule_says_in_words_what_to_do() -> None:
    for path, node in nodes(SCHEMA):
        for rule in node.get("x-kubernetes-validations", []):
            assert len(rule["message"]) > 20, path


def test_numbers_texts_and_lists_are_bounded() -> None:
    """CEL's cost is estimated from the largest value that the schema allows; a number out of range breaks dates."""
    bounds = {"string": "maxLength", "integer": "maximum", "array": "maxItems", "number": "maximum"}
    for path, node in nodes(SCHEMA["properties"]["spec"], "spec"):
        bound = bounds.get(node.get("type", ""))
        ruled = any("self <= " in rule["rule"] for rule in node.get("x-kubernetes-validations", []))
        assert bound is None or bound in node or "enum" in node or ruled, path
