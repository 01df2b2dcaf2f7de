"""The job's values win over its template's, the way that `kubectl patch` would have it."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from finetune_operator.plan.resolve.merge import (
    MergeError,
    check_pod_template,
    compose_pod_templates,
    deep_merge,
    merge_pod_templates,
)

JSON = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.sampled_from(["", "x", "y"]),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=8,
)
TYPED = st.recursive(
    st.fixed_dictionaries({}, optional={"x": st.integers(0, 9), "y": st.sampled_from("pq")}),
    lambda below: st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=6,
)
"""As in a pod, where a field that is a mapping in one template is a mapping in all of them."""
BLOCKS = st.dictionaries(st.sampled_from("abc"), JSON, max_size=3)


def pod(**spec: Any) -> dict[str, Any]:
    return {"spec": spec}


def test_mappings_merge_lists_replace_and_null_removes() -> None:
    template: dict[str, Any] = {"r": 16, "target_modules": ["q_proj"], "nested": {"a": 1, "b": 2}, "lora_dropout": 0.1}
    job: dict[str, Any] = {"target_modules": ["k_proj"], "nested": {"b": 3}, "lora_dropout": None}
    assert deep_merge(template, job) == {"r": 16, "target_modules": ["k_proj"], "nested": {"a": 1, "b": 3}}
    assert deep_merge({"r": 16}, {"lora_dropout": None}) == {"r": 16}, "also what is not there"


@given(BLOCKS, BLOCKS)
def test_merging_twice_is_merging_once(template: dict[str, Any], job: dict[str, Any]) -> None:
    once = deep_merge(template, job)
    assert deep_merge(once, job) == once


@given(BLOCKS)
def test_an_empty_block_changes_nothing(block: dict[str, Any]) -> None:
    assert deep_merge(block, {}) == block
    assert deep_merge({}, block) == block


def test_containers_merge_by_name_and_their_environment_too() -> None:
    base = pod(containers=[{"name": "trainer", "image": "a", "env": [{"name": "X", "value": "1"}]}])
    patch = pod(
        containers=[
            {"name": "sidecar", "image": "b"},
            {"name": "trainer", "env": [{"name": "X", "value": "2"}, {"name": "Y", "value": "3"}]},
        ]
    )
    merged: Any = merge_pod_templates(base, patch)
    trainer, sidecar = merged["spec"]["containers"]
    assert trainer == {
        "name": "trainer",
        "image": "a",
        "env": [{"name": "X", "value": "2"}, {"name": "Y", "value": "3"}],
    }
    assert sidecar == {"name": "sidecar", "image": "b"}


def test_an_entry_that_may_be_one_of_several_things_becomes_the_other_thing() -> None:
    base = pod(volumes=[{"name": "scratch", "emptyDir": {}}, {"name": "dshm", "emptyDir": {"medium": "Memory"}}])
    patch = pod(
        volumes=[
            {"name": "scratch", "hostPath": {"path": "/nvme"}},
            {"name": "dshm", "emptyDir": {"sizeLimit": "1Gi"}},
        ]
    )
    assert merge_pod_templates(base, patch) == pod(
        volumes=[
            {"name": "scratch", "hostPath": {"path": "/nvme"}},
            {"name": "dshm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        ]
    )


def test_tolerations_add_up_without_repeating() -> None:
    gpu, spot = {"key": "gpu", "operator": "Exists"}, {"key": "spot", "operator": "Exists"}
    assert merge_pod_templates(pod(tolerations=[gpu]), pod(tolerations=[spot, gpu])) == pod(tolerations=[gpu, spot])
    assert merge_pod_templates({}, pod(tolerations=[gpu])) == pod(tolerations=[gpu])


@pytest.mark.parametrize(
    ("field", "key"),
    [("volumeMounts", "mountPath"), ("ports", "containerPort"), ("imagePullSecrets", "name"), ("hostAliases", "ip")],
)
def test_other_named_lists_merge_by_their_names(field: str, key: str) -> None:
    name: Any = 80 if key == "containerPort" else "x"
    merged = merge_pod_templates({field: [{key: name, "a": 1}]}, {field: [{key: name, "b": 2}]})
    assert merged == {field: [{key: name, "a": 1, "b": 2}]}


def test_lists_without_names_replace() -> None:
    assert merge_pod_templates({"command": ["a", "b"]}, {"command": ["c"]}) == {"command": ["c"]}


def test_a_label_may_be_called_like_a_list() -> None:
    labels: dict[str, Any] = {"metadata": {"labels": {"env": "prod", "ports": "none"}}}
    assert merge_pod_templates({"metadata": {"labels": {"env": "test"}}}, labels) == labels


def test_null_removes_what_a_layer_further_down_has_set() -> None:
    base = pod(securityContext={"runAsUser": 65532, "runAsNonRoot": True})
    composed = compose_pod_templates(pod(securityContext={"runAsUser": 7}), pod(securityContext={"runAsUser": None}))
    assert merge_pod_templates(base, composed) == pod(securityContext={"runAsNonRoot": True})


@given(TYPED, TYPED, TYPED)
def test_composing_layers_is_merging_them_one_after_the_other(
    base: dict[str, Any], template: dict[str, Any], job: dict[str, Any]
) -> None:
    one_by_one = merge_pod_templates(merge_pod_templates(base, template), job)
    assert merge_pod_templates(base, compose_pod_templates(template, job)) == one_by_one


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        (pod(containers=[{"image": "x"}]), ".spec.containers[0] needs a name"),
        (pod(containers=[{"name": "trainer", "env": [{"value": "x"}]}]), ".spec.containers[0].env[0] needs a name"),
    ],
)
def test_what_cannot_be_merged_is_told_by_its_path(patch: dict[str, Any], words: str) -> None:
    with pytest.raises(MergeError) as problem:
        merge_pod_templates({}, patch)
    assert words in str(problem.value)


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ({"spec": None}, ".spec must be an object"),
        ({"metadata": None}, ".metadata must be an object"),
        ({"metadata": {"labels": None}}, ".metadata.labels must be an object"),
        ({"spec": []}, ".spec must be an object"),
        ({"tolerations": []}, ".tolerations is no field of a PodTemplateSpec: put it under spec"),
        (pod(containers=None), ".spec.containers must be a list"),
        (pod(containers={"name": "trainer"}), ".spec.containers must be a list"),
        (pod(containers=["trainer"]), ".spec.containers[0] must be an object"),
        (pod(containers=[{"name": "trainer", "image": None}]), ".spec.containers[0].image must be a text"),
        (pod(containers=[{"name": "trainer", "image": ""}]), ".spec.containers[0].image must be a text"),
        (pod(containers=[{"name": "trainer", "env": {"A": "1"}}]), ".spec.containers[0].env must be a list"),
        (pod(initContainers=[{"name": "a", "resources": 1}]), ".spec.initContainers[0].resources must be an object"),
        (pod(volumes="data"), ".spec.volumes must be a list"),
        (pod(nodeSelector=["a"]), ".spec.nodeSelector must be an object"),
    ],
)
def test_what_a_pod_cannot_have_is_named_with_its_place(template: dict[str, Any], words: str) -> None:
    with pytest.raises(MergeError) as problem:
        check_pod_template(template)
    assert words in str(problem.value)


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"metadata": {"labels": {"spec": "x"}, "annotations": None}},
        pod(nodeSelector=None, securityContext=None, tolerations=None),
        pod(containers=[{"name": "trainer", "env": None, "resources": {"limits": None}, "command": None}]),
        pod(somethingNew=[1]),
    ],
)
def test_null_may_take_away_what_the_pod_can_do_without(template: dict[str, Any]) -> None:
    check_pod_template(template)
