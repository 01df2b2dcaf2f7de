"""`finetune-operator`: the operator's process."""

from __future__ import annotations

import asyncio
from importlib import metadata
from pathlib import Path
from typing import Annotated

import typer

from finetune_operator import logs, process, settings
from finetune_operator.cluster import config

_ENVIRONMENT = "\n\n".join(
    [
        "Everything else is set by environment variables:",
        *(
            f"{name}{f' (default {default})' if default else ''}: {meaning}"
            for name, default, meaning in settings.variables()
        ),
    ]
)

application = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@application.command(epilog=_ENVIRONMENT)
def operate(
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            envvar="KUBECONFIG", help="How to reach the cluster. In a pod, its service account is used without it."
        ),
    ] = None,
    context: Annotated[str | None, typer.Option(help="Context of the kubeconfig; its current one without it.")] = None,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,  # noqa: FBT002
) -> None:
    """Run the operator: it watches FineTuneJobs and runs them as Kubernetes Jobs, until it gets SIGTERM."""
    if version:
        typer.echo(f"finetune-operator {metadata.version('finetune-operator')}")
        return
    try:
        wanted = settings.load()
        logs.configure(wanted.log_format, wanted.log_level)
        raise typer.Exit(asyncio.run(_operate(wanted, kubeconfig, context)))
    except (settings.SettingsError, config.NoClusterError) as error:
        typer.echo(f"finetune-operator: {error}", err=True)
        raise typer.Exit(2) from None


async def _operate(wanted: settings.Settings, kubeconfig: Path | None, context: str | None) -> int:
    return await process.run(wanted, await config.load(kubeconfig, context))


def main() -> None:
    application()


if __name__ == "__main__":
    main()
