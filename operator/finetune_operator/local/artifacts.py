"""Where on this machine a URI of the status leads."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from finetune_operator.local.folders import JobFolder
from finetune_operator.plan.model.claim_uris import claim_uri, in_claim

_FILE: Final = "file://"


def local_folder(uri: str, folder: JobFolder) -> Path | None:
    """The path of a `pvc://` or `file://` URI; None for one that is elsewhere."""
    found = in_claim(uri)
    if found is not None:
        return folder.claim(found.claim) / found.path
    return Path(uri.removeprefix(_FILE)) if uri.startswith(_FILE) else None


def uri_in_claim(uri: str, folder: JobFolder) -> str:
    """A file:// URI below a claim of the job as the pvc:// URI that a cluster would know it by; else as it is."""
    if not uri.startswith(_FILE):
        return uri
    path = Path(uri.removeprefix(_FILE))
    for claims in (folder.volumes_dir, folder.shared_claims_dir):
        if path.is_relative_to(claims) and path != claims:
            return claim_uri(*path.relative_to(claims).parts)
    return uri
