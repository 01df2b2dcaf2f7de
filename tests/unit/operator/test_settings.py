from __future__ import annotations

import pytest

from finetune_operator.settings import PREFIX, Settings, SettingsError, load, variables


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, _, _ in variables():
        monkeypatch.delenv(name, raising=False)


def set_to(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    for name, value in values.items():
        monkeypatch.setenv(PREFIX + name, value)


@pytest.mark.parametrize("value", ["team,other", "team, other,", '["team", "other"]'])
def test_namespaces_are_a_list_in_either_notation(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    set_to(monkeypatch, NAMESPACES=value)
    assert load().namespaces == ("team", "other")


@pytest.mark.parametrize("value", ["", "[]"])
def test_no_namespace_is_every_namespace(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    set_to(monkeypatch, NAMESPACES=value)
    assert load().namespaces == ()


def test_the_planners_settings_are_below_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to(monkeypatch, PLAN__TRAINER_IMAGE="registry/trainer:2", PLAN__TERMINATION_GRACE_SECONDS="60")
    settings = load().plan
    assert (settings.trainer_image, settings.termination_grace_seconds) == ("registry/trainer:2", 60)


def test_structured_settings_are_json(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to(
        monkeypatch,
        PLAN__PROPAGATED_PREFIXES='["example.org/", "kueue.x-k8s.io/"]',
        PLAN__ENFORCED_POD_TEMPLATE='{"spec": {"hostNetwork": false}}',
    )
    settings = load().plan
    assert settings.propagated_prefixes == ("example.org/", "kueue.x-k8s.io/")
    assert settings.enforced_pod_template == {"spec": {"hostNetwork": False}}


@pytest.mark.parametrize("name", ["PLAN__POD_TEMPLATE", "PLAN__ENFORCED_POD_TEMPLATE"])
def test_a_pod_template_that_is_none_ends_the_operator_in_words(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    set_to(monkeypatch, **{name: '{"spec": {"containers": null}}'})
    with pytest.raises(SettingsError, match=f"FINETUNE_OPERATOR_{name}: .spec.containers must be a list"):
        load()


def test_a_value_that_makes_no_sense_is_named_with_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to(monkeypatch, WORKERS="many", PLAN__RUN_AS_USER="0")
    with pytest.raises(SettingsError) as raised:
        load()
    assert "FINETUNE_OPERATOR_WORKERS" in str(raised.value)
    assert "'many'" in str(raised.value)
    assert "FINETUNE_OPERATOR_PLAN__RUN_AS_USER" in str(raised.value)


def test_a_port_that_kubernetes_set_for_a_service_of_that_name_is_none_of_ours(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_to(monkeypatch, METRICS_PORT="tcp://10.96.0.12:8080")
    assert load().metrics_port == 8080


def test_a_lease_that_could_be_held_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to(monkeypatch, LEASE_DURATION_SECONDS="10", LEASE_DEADLINE_SECONDS="10")
    with pytest.raises(SettingsError, match="10 and 10 seconds"):
        load()


def test_the_deadline_follows_the_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to(monkeypatch, LEASE_DURATION_SECONDS="6")
    assert load().lease_deadline == 4


def test_every_variable_has_a_name_and_a_meaning() -> None:
    listed = {name: meaning for name, _, meaning in variables()}
    assert len(listed) >= len(Settings.model_fields)
    assert all(listed.values())


@pytest.mark.parametrize(("duration", "longest"), [("15", 4.0), ("6", 1.6)])
def test_a_write_ends_before_another_replica_may_take_over(
    monkeypatch: pytest.MonkeyPatch, duration: str, longest: float
) -> None:
    set_to(monkeypatch, LEASE_DURATION_SECONDS=duration)
    settings = load()
    assert settings.longest_write_seconds == pytest.approx(longest)
    assert settings.lease_deadline + settings.longest_write_seconds < settings.lease_duration_seconds
