"""Job files: what is read, and how one that is wrong is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune_operator import builtin
from finetune_operator.cli import jobfile
from finetune_operator.cli.errors import CliError

JOB = """\
apiVersion: finetune-operator.io/v1alpha1
kind: FineTuneJob
metadata: {name: pig}
spec:
  model: {uri: "hf://owner/model"}
  template: {name: lora}
  datasets: [{uri: "s3://bucket/data.jsonl"}]
  gpus: 0
"""
TEMPLATE = """\
apiVersion: finetune-operator.io/v1alpha1
kind: FineTuneTemplate
metadata: {name: lora, namespace: NAMESPACE}
spec: {description: ours}
"""
REFUSED = sorted(Path(__file__).parents[2].glob("cluster/bad/refused/*.yaml"))


def write(folder: Path, *documents: str) -> Path:
    file = folder / "job.yaml"
    file.write_text("---\n".join(documents))
    return file


def refused(file: Path) -> CliError:
    with pytest.raises(CliError) as caught:
        jobfile.read_job(file)
    return caught.value


def test_a_job_without_namespace_is_in_default(tmp_path: Path) -> None:
    job, _ = jobfile.read_job(write(tmp_path, JOB))
    assert (job.metadata.name, job.metadata.namespace) == ("pig", "default")


def test_numbers_are_read_as_kubernetes_reads_them(tmp_path: Path) -> None:
    job, _ = jobfile.read_job(
        write(tmp_path, JOB + "  training: {trainerConfig: {learning_rate: 2e-4, seed: 7, run_name: 2026-01-31}}\n")
    )
    assert job.spec.training.trainer_config == {"learning_rate": 2e-4, "seed": 7, "run_name": "2026-01-31"}


@pytest.mark.parametrize("file", REFUSED, ids=lambda file: file.stem)
def test_what_the_api_server_refuses_is_refused_offline(file: Path) -> None:
    error = refused(file)
    assert error.exit_code == 64
    assert error.problems


def test_every_problem_is_listed_with_its_path_and_the_nearest_name(tmp_path: Path) -> None:
    broken = JOB.replace("gpus: 0", "gpus: -1").replace("lora}", "lora, knd: x}")
    problems = {problem.where: (problem.what, problem.advice) for problem in refused(write(tmp_path, broken)).problems}
    assert problems["spec.template.knd"] == ("unknown field", "did you mean kind?")
    assert problems["spec.gpus"][0] == "must be greater than or equal to 0"


def test_a_wrong_item_is_not_reported_as_a_missing_one_too(tmp_path: Path) -> None:
    error = refused(write(tmp_path, JOB.replace("s3://", "ftp://")))
    assert [problem.where for problem in error.problems] == ["spec.datasets[0].uri"]


def test_a_text_is_no_number(tmp_path: Path) -> None:
    assert refused(write(tmp_path, JOB.replace("gpus: 0", 'gpus: "0"'))).problems[0].where == "spec.gpus"


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [", "is not YAML"), ("- 1", "no Kubernetes object"), ("", "no FineTuneJob"), (JOB + "---\n" + JOB, "2 jobs")],
)
def test_a_file_that_is_no_job_says_what_it_is(tmp_path: Path, text: str, message: str) -> None:
    assert message in refused(write(tmp_path, text)).message


def test_a_file_that_is_not_there_ends_with_not_found(tmp_path: Path) -> None:
    assert refused(tmp_path / "none.yaml").exit_code == 66


def test_other_kinds_are_passed_over(tmp_path: Path) -> None:
    _, contents = jobfile.read_job(write(tmp_path, JOB, "apiVersion: v1\nkind: Secret\n"))
    assert contents.others == ("Secret",)


def test_a_template_of_the_jobs_namespace_comes_before_the_built_in_one(tmp_path: Path) -> None:
    job, contents = jobfile.read_job(write(tmp_path, JOB, TEMPLATE.replace("NAMESPACE", "default")))
    found = jobfile.find_template(job, (*builtin.templates(), *contents.templates))
    assert (found.kind, found.spec.description) == ("FineTuneTemplate", "ours")


def test_a_template_of_another_namespace_is_not_used(tmp_path: Path) -> None:
    job, contents = jobfile.read_job(write(tmp_path, JOB, TEMPLATE.replace("NAMESPACE", "other")))
    assert jobfile.find_template(job, (*contents.templates, *builtin.templates())).kind == "ClusterFineTuneTemplate"


def test_a_missing_template_names_those_that_there_are(tmp_path: Path) -> None:
    job, _ = jobfile.read_job(write(tmp_path, JOB.replace("{name: lora}", "{name: lroa}")))
    with pytest.raises(CliError) as caught:
        jobfile.find_template(job, builtin.templates())
    assert caught.value.problems[0].advice == "known: full, lora, qlora"
