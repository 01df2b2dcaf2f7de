"""The CLI's way to a cluster: the operator's own client, which the base install does not bring."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeVar

from finetune_operator.api.resources import Template
from finetune_operator.cli.errors import CliError
from finetune_trainer.contract import ExitCode

if TYPE_CHECKING:
    from finetune_operator.cluster.read_job import Reader

T = TypeVar("T")

_INSTALL = "install it with: pip install 'finetune-operator[operator]'"


def with_reader(work: Callable[[Reader], Awaitable[T]], context: str = "", namespace: str = "") -> T:
    """Runs `work` with a reader of the cluster. Raises `CliError` when there is none to be had."""
    try:
        from finetune_operator.cluster import client, config, read_job  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise CliError(
            f"the Kubernetes client is not installed ({error.name})", advice=_INSTALL, exit_code=1
        ) from error

    async def run() -> T:
        async with read_job.reader(context or None, namespace or None) as found:
            return await work(found)

    try:
        return asyncio.run(run())
    except config.NoClusterError as error:
        raise CliError(str(error), exit_code=1) from error
    except client.UnavailableError as error:
        raise CliError(f"the cluster does not answer: {error.message}", advice=_CHECK, exit_code=1) from error
    except client.ApiError as error:
        raise CliError(f"the API server refused: {error.message or error.reason}", exit_code=1) from error


_CHECK = "check KUBECONFIG, or name a context with --context"


def templates() -> tuple[Template, ...]:
    """The templates of the current cluster."""
    return with_reader(lambda found: found.templates())


def not_found(name: str, namespace: str) -> CliError:
    """There is no such job."""
    return CliError(
        f"there is no FineTuneJob {name} in namespace {namespace}",
        advice="kubectl get ftj -A lists all jobs; -n names another namespace",
        exit_code=ExitCode.NOT_FOUND,
    )
