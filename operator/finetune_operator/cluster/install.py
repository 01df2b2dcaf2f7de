"""Installs the built-in templates that are missing. One that is there is somebody's: it is never overwritten."""

from __future__ import annotations

from collections.abc import Iterable

import structlog

from finetune_operator.api.resources import ClusterFineTuneTemplate
from finetune_operator.cluster.client import ApiError, Client, ConflictError, UnavailableError
from finetune_operator.runtime.inbox import Inbox
from finetune_operator.runtime.kinds import CLUSTER_TEMPLATES
from finetune_operator.runtime.store import Store, record_of

_log = structlog.get_logger(__name__)


async def install_templates(
    client: Client, store: Store, inbox: Inbox, templates: Iterable[ClusterFineTuneTemplate]
) -> None:
    """Creates every template that is not there."""
    for template in templates:
        name = template.metadata.name
        if store.get(CLUSTER_TEMPLATES, "", name) is not None:
            continue
        manifest = template.to_manifest()
        manifest["metadata"] = {"name": name, "labels": template.metadata.labels}
        try:
            answer = await client.create(CLUSTER_TEMPLATES.path(None), manifest)
        except ConflictError:
            continue
        except UnavailableError:
            raise
        except ApiError as error:
            _log.error("template_not_installed", template=name, error=str(error))
            continue
        inbox.seen(record_of(CLUSTER_TEMPLATES, answer))
        _log.info("template_installed", template=name)
