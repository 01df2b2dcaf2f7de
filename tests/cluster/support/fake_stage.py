"""A stage that computes nothing and plays a part; standard library only, so that it starts in a tenth of a second.

Runs in a pod as its first process and does what FAKE_STAGE says (see `fakes.py`), by stage or by attempt of training:

    ok      ends well at once; training leaves a checkpoint of step 10 in the workspace
    hold    runs until the file /scratch/end is there, whose content is its exit code; SIGTERM ends it as interrupted
    deaf    the same, but SIGTERM does not end it
    70      ends with that exit code at once
    silent  as hold, and so are the following; what comes to the port of the progress is accepted, and not answered
    huge    answers 300 MiB
    trickle answers a byte every tenth of a second
    redirect
            sends whoever asks to a report of step 999
    pieces  answers a good report of step 7, in twenty segments
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

SCRIPT = "FAKE_STAGE"
END = "/scratch/end"
STEP = 10
INTERRUPTED = 75
NOT_FOUND = 66
DIGEST = "0" * 64
POLL_SECONDS = 0.05
MIB = 1024 * 1024
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"


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
    if part in REPORTS:
        serve(REPORTS[part])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: None if part == "deaf" else stop.set())
    if part == "ok":
        return 0
    end = Path(END)
    while not end.exists():
        if stop.wait(POLL_SECONDS):
            return INTERRUPTED
    return int(end.read_text() or 0)


def serve(answer: Answer) -> None:
    """Answer everybody who asks for the progress, each as if there were no other."""
    server = socket.create_server(("", int(os.environ["FINETUNE_PROGRESS_PORT"])), backlog=64)

    def take() -> None:
        while True:
            asking, _ = server.accept()
            threading.Thread(target=talk, args=(answer, asking), daemon=True).start()

    threading.Thread(target=take, daemon=True).start()


def talk(answer: Answer, asking: socket.socket) -> None:
    with contextlib.suppress(OSError), asking:
        asked = asking.recv(4096)
        asking.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        answer(asking, asked)


def silence(_: socket.socket, __: bytes) -> None:
    threading.Event().wait()


def flood(asking: socket.socket, _: bytes) -> None:
    asking.sendall(HEAD)
    for _number in range(300):
        asking.sendall(b" " * MIB)


def trickle(asking: socket.socket, _: bytes) -> None:
    asking.sendall(HEAD)
    while True:
        asking.sendall(b" ")
        threading.Event().wait(0.1)


def redirect(asking: socket.socket, asked: bytes) -> None:
    if b" /elsewhere" in asked:
        asking.sendall(HEAD + report(999))
    else:
        asking.sendall(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nConnection: close\r\n\r\n")


def pieces(asking: socket.socket, _: bytes) -> None:
    whole = HEAD + report(7)
    size = len(whole) // 20 + 1
    for start in range(0, len(whole), size):
        asking.sendall(whole[start : start + size])
        threading.Event().wait(0.02)


def report(step: int) -> bytes:
    moment = datetime.now(UTC).isoformat()
    return json.dumps({"stage": "train", "updatedAt": moment, "step": step, "totalSteps": 1000}).encode()


Answer = Callable[[socket.socket, bytes], None]
REPORTS = {"silent": silence, "huge": flood, "trickle": trickle, "redirect": redirect, "pieces": pieces}


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
