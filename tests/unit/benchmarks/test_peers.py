"""How the peers are built and set up, and how ratios are made."""

from pathlib import Path

import pytest
import yaml
from benchmarks.load import percentile
from benchmarks.peers.__main__ import spread
from benchmarks.peers.build import Module, _raise_rate, _required
from benchmarks.peers.trainer import PORTS, TRAINER, _webhooks

MAIN = "package main\n\nfunc main() {\n\tmgr, err := ctrl.NewManager(ctrl.GetConfigOrDie(), ctrl.Options{})\n}\n"
WEBHOOKS = """
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingWebhookConfiguration
metadata: {name: mutating-webhook-configuration}
webhooks:
- clientConfig: {service: {name: webhook-service, namespace: system, path: /mutate-jobset}}
  name: mjobset.kb.io
- clientConfig: {service: {name: webhook-service, namespace: system, path: /mutate-pod}}
  name: mpod.kb.io
"""


def test_the_version_of_a_module_is_the_one_that_go_mod_requires() -> None:
    go_mod = "module x\n\nrequire (\n\tsigs.k8s.io/jobset-tools v9.9.9\n\tsigs.k8s.io/jobset v0.8.2\n)\n"
    assert _required(go_mod, "sigs.k8s.io/jobset") == "v0.8.2"
    with pytest.raises(ValueError, match="does not require"):
        _required("module x\n", "sigs.k8s.io/jobset")


def test_the_request_rate_is_raised_where_the_client_is_made_and_nowhere_else(tmp_path: Path) -> None:
    main = tmp_path / "main.go"
    main.write_text(MAIN)
    main.chmod(0o444)  # as in the module cache
    _raise_rate(main)
    assert main.read_text() == MAIN.replace("ctrl.GetConfigOrDie()", "atRate(ctrl.GetConfigOrDie())")
    assert "cfg.QPS, cfg.Burst = 500, 500" in (tmp_path / "rate.go").read_text()


def test_a_client_that_is_made_in_another_way_is_not_taken_for_raised(tmp_path: Path) -> None:
    main = tmp_path / "main.go"
    main.write_text("package main\n")
    with pytest.raises(ValueError, match="in another way"):
        _raise_rate(main)


def test_webhooks_are_called_by_address_and_those_of_pods_only_for_a_job_sets(tmp_path: Path) -> None:
    (tmp_path / "manifests.yaml").write_text(WEBHOOKS)
    (found,) = yaml.safe_load_all(_webhooks(Module("m", "v1", tmp_path, tmp_path), "", "jobset-", TRAINER))
    assert found["metadata"]["name"] == "jobset-mutating-webhook-configuration"
    jobs, pods = found["webhooks"]
    assert jobs["clientConfig"] == {"url": f"https://127.0.0.1:{PORTS[TRAINER][0]}/mutate-jobset"}
    assert "objectSelector" not in jobs
    assert pods["objectSelector"]["matchExpressions"][0]["key"] == "jobset.sigs.k8s.io/jobset-name"


def test_ratios_are_shown_with_their_range() -> None:
    assert spread([0.5, 2.0, 1.0]) == "1.00 (0.50 … 2.00)"


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([3.0, 1.0, 2.0], 1.0) == 3.0
