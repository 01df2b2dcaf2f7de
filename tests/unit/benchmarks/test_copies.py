"""The operator's own Job, applied by hand."""

from benchmarks.operator.starting import by_hand


def test_a_copy_keeps_what_shapes_pods_and_nothing_that_belongs_to_the_operator_or_to_the_first_one() -> None:
    labels = {"app.kubernetes.io/managed-by": "finetune-operator", "batch.kubernetes.io/controller-uid": "1"}
    pod = {"containers": [{"name": "trainer"}]}
    job = {
        "metadata": {"name": "bot-prepare", "uid": "1", "labels": labels, "ownerReferences": [{"uid": "2"}]},
        "spec": {
            "backoffLimit": 6,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
        "status": {"active": 1},
    }
    assert by_hand(job, "copy") == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "copy"},
        "spec": {"backoffLimit": 6, "template": {"metadata": {}, "spec": pod}},
    }
