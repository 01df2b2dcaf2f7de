"""What a job is called while one of its stages is at work."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from finetune_operator.api.status import Phase, Reason
from finetune_trainer.contract import Stage

PHASES: Final[Mapping[Stage, tuple[Phase, Reason, str]]] = {
    Stage.PREPARE: (Phase.PREPARING, Reason.PREPARING, "checking the model and the data before any GPU is taken"),
    Stage.TRAIN: (Phase.QUEUED, Reason.QUEUED, "waiting for the training pods to run"),
    Stage.PUBLISH: (Phase.PUBLISHING, Reason.PUBLISHING, "reloading the result, trying it and storing it"),
}
