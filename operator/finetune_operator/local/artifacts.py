"""Where on this machine a URI of the status leads."""

from __future__ import annotations

from pathlib import Path

from finetune_operator.local.folders import JobFolder


def local_folder(uri: str, folder: JobFolder) -> Path | None:
    """The path of a `pvc://` or `file://` URI; None for one that is elsewhere."""
    scheme, _, rest = uri.partition("://")
    if scheme == "file":
        return Path(rest)
    if scheme == "pvc":
        claim, _, below = rest.partition("/")
        return folder.claim(claim) / below
    return None
