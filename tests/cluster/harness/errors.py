"""What can go wrong with the test cluster, in words for the person who can act on it."""

from collections.abc import Sequence


class UnavailableError(Exception):
    """This machine cannot run the test cluster: no root, no Go, no Debian packages."""


class ClusterFailedError(Exception):
    """The cluster did not start, or stopped by itself."""


class CommandFailedError(Exception):
    """A command ended with another status than 0."""

    def __init__(self, argv: Sequence[str], status: int, stdout: str, stderr: str) -> None:
        words = (stderr.strip() or stdout.strip())[-4000:]
        super().__init__(f"`{' '.join(argv)}` ended with status {status}: {words}")
        self.status = status
        self.stdout = stdout
        self.stderr = stderr
