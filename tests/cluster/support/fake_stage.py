"""A stage that computes nothing and plays a part; standard library only, so that it starts in a tenth of a second.

Runs in a pod as its first process and does what FAKE_STAGE says (see `fakes.py`), by stage or by attempt of training:

    ok      ends well at once; training leaves a checkpoint of step 10 in the workspace
    hold    runs until the file /scratch/end is there, whose content is its exit code; SIGTERM ends it as interrupted
    deaf    the same, but SIGTERM does not end it
    70      ends with that exit code at once
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

SCRIPT = "FAKE_STAGE"
END = "/scratch/end"
STEP = 10
INTERRUPTED = 75
NOT_FOUND = 66
DIGEST = "0" * 64
POLL_SECONDS = 0.05


def main() -> None:
    script = json.loads(os.environ[SCRIPT])
    config = json.loads(Path(os.environ["FINETUNE_RUN_CONFIG"]).read_bytes())
    stage, attempt = config["stage"], config["attempt"]
    part = script["parts"].get(f"{stage}-{attempt}", script["parts"].get(stage, "ok"))
    origin = (config.get("checkpoints") or {}).get("resumeFrom")
    found = None if origin is None else resumable(origin["uri"])
    say(stage=stage, attempt=attempt, part=part, resumeFrom=origin, found=found)
    code = NOT_FOUND if found == [] else play(part)
    Path(os.environ["FINETUNE_TERMINATION_LOG"]).write_text(json.dumps(result(config, code) | script["result"]))
    say(stage=stage, attempt=attempt, exit=code)
    sys.exit(code)


def play(part: str | int) -> int:
    """The exit code of the part."""
    if isinstance(part, int):
        return part
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: None if part == "deaf" else stop.set())
    if part == "ok":
        return 0
    end = Path(END)
    while not end.exists():
        if stop.wait(POLL_SECONDS):
            return INTERRUPTED
    return int(end.read_text() or 0)


def resumable(uri: str) -> list[str]:
    """What lies in the folder of another job's claim, which must not be writable."""
    folder = Path(os.environ["FINETUNE_VOLUMES"], uri.removeprefix("pvc://"))
    try:
        (folder / "written").touch()
    except OSError:
        return sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    return []


def result(config: dict[str, Any], code: int) -> dict[str, Any]:
    """A Result of the contract."""
    stage = config["stage"]
    told: dict[str, Any] = {"stage": stage, "exitCode": code, "message": f"played, and ended with {code}"}
    if code:
        return told
    match stage:
        case "prepare":
            told["prepared"] = {"format": "text", "rows": 2, "trainRows": 2, "evalRows": 0, "digest": DIGEST}
        case "train":
            told["trained"] = trained()
        case "publish":
            artifact = {"kind": "adapter", "uri": config["output"]["uri"], "sha256": DIGEST, "bytes": 1}
            told["published"] = {"artifacts": [artifact]}
    return told


def trained() -> dict[str, Any]:
    folder = Path(os.environ["FINETUNE_WORKSPACE"], "checkpoints", f"step-{STEP}")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "weights").write_text("trained")
    checkpoint = {"step": STEP, "uri": folder.as_uri(), "verified": True, "bytes": 7}
    figures = {"step": STEP, "totalSteps": STEP, "epoch": 1.0, "trainableParameters": 1, "totalParameters": 1}
    return {**figures, "checkpoints": [checkpoint], "digest": DIGEST}


def say(**words: Any) -> None:
    """One line of the log."""
    sys.stdout.write(json.dumps(words) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
