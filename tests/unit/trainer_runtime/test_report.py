from __future__ import annotations

import http.client
import json
from pathlib import Path

import pytest

from finetune_trainer.contract import Progress, Stage
from finetune_trainer.pod.report import Reporter, serve


def get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


def test_progress_is_served_as_it_was_last_written(tmp_path: Path) -> None:
    file = tmp_path / "progress.json"
    server = serve(file, 0)
    port = server.server_address[1]
    reporter = Reporter(Stage.TRAIN, file)

    before = get(port, "/progress")
    reporter.update(step=3, total_steps=10, loss=1.25, message="training")
    status, body = get(port, "/progress")
    _, metrics = get(port, "/metrics")
    unknown = get(port, "/else")
    server.shutdown()

    assert before[0] == 503
    assert status == 200
    assert Progress.model_validate_json(body) == reporter.progress
    assert json.loads(body)["totalSteps"] == 10
    assert 'finetune_trainer_loss{stage="train"} 1.25\n' in metrics
    assert "finetune_trainer_eta_seconds" not in metrics
    assert "# TYPE finetune_trainer_updated_timestamp_seconds gauge" in metrics
    assert unknown[0] == 404


def test_a_taken_port_is_an_error(tmp_path: Path) -> None:
    server = serve(tmp_path / "progress.json", 0)
    with pytest.raises(OSError, match="in use"):
        serve(tmp_path / "progress.json", server.server_address[1])
    server.shutdown()
