"""Pods that are asked for their progress, and the answer that they should give."""

from __future__ import annotations

import json

from tests.unit.cluster import hostile

from finetune_operator.cluster.pods import PodAddress
from finetune_operator.cluster.progress import Scraper

SAID = {"stage": "train", "updatedAt": "2026-01-01T00:00:00Z", "step": 7}
GOOD = hostile.answer(json.dumps(SAID).encode())
NOBODY = PodAddress("p", "127.0.0.1")


def proxy(scraper: Scraper, pod: str = "p", namespace: str = "team") -> str:
    return f"/api/v1/namespaces/{namespace}/pods/{pod}:{scraper.port}/proxy/progress"
