"""The command line: every command's options and help. What a command does is imported when it runs."""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final

import typer

from finetune_operator.cli.errors import CliError

_STATE_DIR: Final = Path(".finetune")
_WORKSPACE_SIZE: Final = "50Gi"
"""What the Helm chart gives a job by default."""
_HELP: Final = """Fine-tune language models: on this machine, or on Kubernetes.

A job is a FineTuneJob in YAML; the same file works here and with kubectl apply.
"""


def _examples(*lines: str) -> str:
    """An epilog whose lines stay as they are."""
    return "\n\n\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


app = typer.Typer(
    name="finetune",
    help=_HELP,
    epilog=_examples("finetune run examples/01-pig-latin/job.yaml", "finetune plan job.yaml | less"),
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
templates_app = typer.Typer(help="List and show templates.", rich_markup_mode=None)
app.add_typer(
    templates_app,
    name="templates",
    epilog=_examples("finetune templates", "finetune templates show lora > my-template.yaml"),
)

JobFile = Annotated[Path, typer.Argument(metavar="FILE", help="YAML with a FineTuneJob, and templates; - is stdin.")]
JobName = Annotated[str, typer.Argument(metavar="NAME", help="The job's name.")]
Namespace = Annotated[str, typer.Option("--namespace", "-n", help="The job's namespace; the context's own without it.")]
Templates = Annotated[Path | None, typer.Option(help="A file or folder with more templates.", exists=True)]
StateDir = Annotated[Path, typer.Option(help="Where local runs keep their state.")]
Context = Annotated[str, typer.Option(help="A context of the kubeconfig; the current one without it.")]


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it
    if wanted:
        typer.echo(f"finetune {metadata.version('finetune-operator')}")
        raise typer.Exit


@app.callback()
def _root(
    *,
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command(
    epilog=_examples(
        "finetune run job.yaml",
        "finetune run job.yaml --fresh",
        "finetune run job.yaml --plain --status-file status.json",
    )
)
def run(  # noqa: PLR0913 - a command takes its options
    file: JobFile,
    *,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start over; the last artifact is kept.")] = False,
    status_file: Annotated[Path | None, typer.Option(help="Keep the status document in this file, too.")] = None,
    state_dir: StateDir = _STATE_DIR,
    secrets: Annotated[
        Path | None, typer.Option(help="A folder for each Secret, a file for each key.", exists=True, file_okay=False)
    ] = None,
    templates: Templates = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of the live view.")] = False,
) -> None:
    """Run a job on this machine, without Kubernetes.

    The pods that the operator would start run as processes here, one stage after the other. Ctrl-C saves a
    checkpoint and stops; the same command resumes. The exit code is the failing stage's: 64 invalid config,
    65 invalid data, 66 not found, 71 out of memory, 72 diverged, 75 interrupted.
    """
    from finetune_operator.cli import run as command  # noqa: PLC0415

    raise typer.Exit(command.run(command.Options(file, state_dir, fresh, status_file, secrets, templates, plain)))


@app.command(epilog=_examples("finetune plan job.yaml"))
def plan(
    file: JobFile,
    *,
    output: Annotated[str, typer.Option("--output", "-o", help="yaml or json.")] = "yaml",
    templates: Templates = None,
    workspace_size: Annotated[
        str, typer.Option(help="The claim made for a job without workspace and output; empty makes none.")
    ] = _WORKSPACE_SIZE,
) -> None:
    """Show the resolved config and the manifests of a job, offline.

    The template and every default are filled in. What a later stage learns from an earlier one is marked.
    """
    from finetune_operator.cli import plan as command  # noqa: PLC0415

    command.plan(file, output, templates, workspace_size)


@templates_app.callback(invoke_without_command=True)
def list_templates(
    context: typer.Context,
    *,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Templates of a file or folder, too.")] = None,
    cluster: Annotated[bool, typer.Option("--cluster", help="Templates of the current cluster, too.")] = False,
) -> None:
    """List the templates that are built in."""
    from finetune_operator.cli import templates as command  # noqa: PLC0415

    context.obj = command.Sources(file, cluster=cluster)
    if context.invoked_subcommand is None:
        command.list_templates(context.obj)


@templates_app.command("show", epilog=_examples("finetune templates show lora > my-template.yaml"))
def show_template(context: typer.Context, name: Annotated[str, typer.Argument(help="The template's name.")]) -> None:
    """Print a template as YAML."""
    from finetune_operator.cli import templates as command  # noqa: PLC0415

    command.show(context.obj, name)


@app.command(epilog=_examples("finetune watch support-bot", "finetune watch support-bot -n team-a"))
def watch(
    name: JobName,
    *,
    namespace: Namespace = "",
    context: Context = "",
    plain: Annotated[bool, typer.Option("--plain", help="Lines instead of the live view.")] = False,
) -> None:
    """Follow a job in the cluster until it ends.

    The exit code is 0 when it succeeded and 1 when it failed or was deleted.
    """
    from finetune_operator.cli import watch as command  # noqa: PLC0415

    raise typer.Exit(command.watch(name, namespace, context, plain=plain))


@app.command(
    epilog=_examples(
        "finetune logs support-bot -n team-a --follow",
        "finetune logs support-bot --stage train --rank 1 --previous",
        "finetune logs support-bot --save support-bot.log",
    )
)
def logs(  # noqa: PLR0913 - a command takes its options
    name: JobName,
    *,
    namespace: Namespace = "",
    context: Context = "",
    stage: Annotated[str, typer.Option(help="prepare, train or publish; the newest without it.")] = "",
    rank: Annotated[int | None, typer.Option(help="Only this node's pod.", min=0)] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the pods end.")] = False,
    previous: Annotated[bool, typer.Option("--previous", "-p", help="The attempt before the newest.")] = False,
    save: Annotated[Path | None, typer.Option(help="Write the logs of all stages and ranks to this file.")] = None,
    state_dir: Annotated[
        Path | None, typer.Option(help="Read the logs of a local run that keeps its state here.")
    ] = None,
) -> None:
    """Show the logs of a job's pods: of a local run when there is one of that name, else in the cluster."""
    from finetune_operator.cli import logs as command  # noqa: PLC0415

    wanted = command.Wanted(stage, rank, follow=follow, previous=previous, save=save)
    command.logs(name, namespace, context, wanted, state_dir, _STATE_DIR)


def main() -> None:
    """Entry point of `finetune` and `kubectl finetune`."""
    prog = "kubectl finetune" if Path(sys.argv[0]).name.startswith("kubectl-") else "finetune"
    try:
        app(prog_name=prog)
    except CliError as error:
        from finetune_operator.cli.console import say  # noqa: PLC0415

        say(error)
        sys.exit(error.exit_code)
