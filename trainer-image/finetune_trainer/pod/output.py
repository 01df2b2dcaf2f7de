"""The workers' output on its way to the container's log."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Final, TextIO

from finetune_trainer import log

_KEPT_LINES: Final = 200
_LAST_WORDS_SECONDS: Final = 5.0


class Relay:
    """A pipe that workers write to: each line goes on to `target`, and the last ones are remembered.

    A line that is no JSON object (a library's warning, a traceback) becomes one event, unless `raw`.
    """

    def __init__(self, target: TextIO, *, raw: bool) -> None:
        self._read_end, self.write_end = os.pipe()
        self._target = target
        self._raw = raw
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._thread = threading.Thread(target=self._pump, name="output", daemon=True)

    def start(self) -> None:
        """Begin to pass lines on; only the processes that have inherited the pipe hold its write end now."""
        os.close(self.write_end)
        self._thread.start()

    def tail(self) -> list[str]:
        """The last lines, once every writer is gone (or does not go)."""
        self._thread.join(_LAST_WORDS_SECONDS)
        return list(self._lines)

    def _pump(self) -> None:
        with os.fdopen(self._read_end, encoding="utf-8", errors="replace") as source:
            for line in source:
                self._lines.append(line.rstrip("\n"))
                self._pass_on(line.rstrip("\n"))

    def _pass_on(self, line: str) -> None:
        if self._raw or line.startswith("{"):
            self._target.write(f"{line}\n")
            self._target.flush()
        elif line.strip():
            log.logger().info(line, source="library")
