"""What the tests' jobs read and write in the object store."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cluster.harness.s3 import S3

ROWS = 64
SECRET = "s3-credentials"  # noqa: S105 - a name


@dataclass(frozen=True)
class Store:
    """A bucket with a tiny model, good and bad data, and room for results."""

    s3: S3
    bucket: str

    @property
    def model(self) -> str:
        return f"s3://{self.bucket}/models/tiny"

    @property
    def data(self) -> str:
        return f"s3://{self.bucket}/data/rows.jsonl"

    @property
    def checkpoints(self) -> str:
        """Shared by every job that copies its checkpoints to a bucket."""
        return f"s3://{self.bucket}/checkpoints"

    def output(self, name: str) -> str:
        return f"s3://{self.bucket}/out/{name}"

    def secret(self) -> dict[str, Any]:
        """A Secret with the store's credentials."""
        keys = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_REGION")
        environment = self.s3.environment()
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET},
            "stringData": {key: environment[key] for key in keys},
        }

    def put_rows(self, name: str, rows: list[str]) -> str:
        """Store these lines as a .jsonl file and return its URI."""
        self.s3.put(self.bucket, f"data/{name}.jsonl", ("\n".join(rows) + "\n").encode())
        return f"s3://{self.bucket}/data/{name}.jsonl"


def rows(count: int) -> list[str]:
    """Rows that a tiny model can learn: each word is followed by the next one."""
    texts = [" ".join(f"w{(start + step) % 125}" for step in range(12)) for start in range(count)]
    return [json.dumps({"prompt": text[: len(text) // 2].rsplit(" ", 1)[0], "completion": text}) for text in texts]


def fill(s3: S3, folder: Path) -> Store:
    """Make the bucket and put the tiny model and its rows into it."""
    store = Store(s3, s3.make_bucket("finetune-tests"))
    subprocess.run([sys.executable, "-m", "tests.tiny_model", str(folder)], check=True)
    for file in folder.iterdir():
        s3.put(store.bucket, f"models/tiny/{file.name}", file.read_bytes())
    store.put_rows("rows", rows(ROWS))
    return store
