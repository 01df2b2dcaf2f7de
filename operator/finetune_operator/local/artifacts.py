"""Where on this machine a URI of the status leads."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from finetune_operator.local.folders import JobFolder
from finetune_operator.plan.model.claim_uris import in_claim

_FILE: Final = "file://"


def local_folder(uri: str, folder: JobFolder) -> Path | None:
    """The path of a `pvc://` or `file://` URI; None for one that is elsewhere."""
    found = in_claim(uri)
    if found is not None:
        return folder.claim(found.claim) / found.path
    return Path(uri.removeprefix(_FILE)) if uri.startswith(_FILE) else None
