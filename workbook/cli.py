"""The command line: ``python -m workbook run | sweep | list | report | compare | bench``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from workbook import paths, state
from workbook.context import PROFILES
from workbook.errors import WorkbookError


def _plain_errors(command: Callable[..., Any]) -> Callable[..., Any]:
    """Show a `WorkbookError` as one line and exit with 2, as click does for its own."""

    @wraps(command)
    def wrapped(*arguments: Any, **options: Any) -> Any:
        try:
            return command(*arguments, **options)
        except WorkbookError as error:
            click.echo(f"Error: {error}", err=True)
            sys.exit(2)

    return wrapped


def _asked(values: str, parameters: str, out: str) -> Callable[..., Any]:
    """What `run` and `sweep` are asked alike, with each one's own words.

    Parameters
    ----------
    values, parameters : str
        What ``-p`` takes, and its help.
    out : str
        Help of ``--out``.
    """
    options = (
        click.argument("notebooks", nargs=-1),
        click.option("--profile", type=click.Choice(PROFILES), help="How much to measure. [quick]"),
        click.option(
            "-p", "parameters", type=(str, str), multiple=True, metavar=f"NAME {values}",
            help=f"{parameters}; may be repeated.",
        ),
        click.option("--out", type=click.Path(file_okay=False, path_type=Path), help=out),
    )  # fmt: skip

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorated


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Run the notebooks without a screen, and report what came out."""


@main.command()
@_asked(
    "VALUE",
    "Set a parameter in every selected notebook that has it",
    "The run's folder. [outputs/<UTC time>-<profile>]",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Run again only what is missing, failed or changed, in --out or the latest run.",
)
@click.option("--fresh", is_flag=True, help="Begin a new run, even where nothing changed.")
@_plain_errors
def run(
    notebooks: tuple[str, ...],
    profile: str | None,
    parameters: tuple[tuple[str, str], ...],
    out: Path | None,
    resume: bool,
    fresh: bool,
) -> None:
    """Run NOTEBOOKS (numbers or names; all but interactive if none is named) and their needs.

    The same command again goes on with the run that it began, as long as nothing changed since:
    what ended well is not run a second time.
    """
    from workbook.runner import Request, run

    request = Request(notebooks, profile, dict(parameters), out, resume, fresh)
    outcome = run(request, Console())
    click.echo(f"Report: {paths.relative(outcome.index)}")
    sys.exit(outcome.code)


@main.command()
@_asked(
    "VALUES",
    "Values of a parameter, separated by commas",
    "The sweep's folder. [outputs/sweep-<hash of the request>]",
)
@click.option("--resume", is_flag=True, help="Go on with the sweep in --out, or the latest.")
@click.option(
    "--scheduler",
    metavar="tcp://HOST:8786",
    help="Run the items on the workers of this Dask scheduler, one at a time on each host.",
)
@_plain_errors
def sweep(
    notebooks: tuple[str, ...],
    profile: str | None,
    parameters: tuple[tuple[str, str], ...],
    out: Path | None,
    resume: bool,
    scheduler: str | None,
) -> None:
    """Run each of NOTEBOOKS with every combination of the values, each in a run of its own.

    The same command again goes on where it stopped; what is unchanged is not run again. Lists are
    separated by semicolons (-p widths "w8a8,w4a8;w2a2"); the singular of a list's name takes its
    elements one by one (-p batch 1,8 for batches).
    """
    from workbook.sweep import Request, run

    request = Request(notebooks, profile, parameters, out, resume, scheduler)
    outcome = run(request, Console())
    click.echo(f"Sweep: {paths.relative(outcome.index)}")
    sys.exit(outcome.code)


@main.command(name="list")
@_plain_errors
def list_() -> None:
    """List the notebooks with their parameters."""
    from workbook.catalogue import load

    table = Table("notebook", "question", "parameters", box=None, pad_edge=False)
    for notebook in load(paths.notebooks_dir()).values():
        known = [f"{p.name} = {p.source}" for p in notebook.parameters.values()]
        needs = f"\nneeds {', '.join(notebook.needs)}" if notebook.needs else ""
        for_lab = "\ninteractive: open it with 'make lab'" if notebook.interactive else ""
        table.add_row(notebook.name, f"{notebook.title}{needs}{for_lab}", ", ".join(known))
    Console().print(table)


@main.command()
@click.argument("run", default="latest")
@click.option("--pdf/--no-pdf", default=None, help="Print it too. [where Chromium is found]")
@_plain_errors
def report(run: str, pdf: bool | None) -> None:
    """Write the pages of RUN again: a folder, a name in outputs/, or 'latest'."""
    from workbook import chromium
    from workbook import report as pages

    folder = _folder(run)
    wanted = bool(chromium.find()) if pdf is None else pdf
    pages.export_again(folder)
    click.echo(f"Report: {paths.relative(pages.build(folder, wanted))}")
    if wanted:
        click.echo(f"PDF: {paths.relative(folder / pages.PDF)}")
    elif pdf is None:
        click.echo(f"PDF: left out, {chromium.ABSENT}")


@main.command()
@click.argument("before")
@click.argument("after")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The page. [outputs/compare-BEFORE-AFTER.html]",
)
@click.option(
    "--fail-on-regression",
    is_flag=True,
    help="Exit with 1 where something regressed, or a notebook no longer ends well.",
)
@_plain_errors
def compare(before: str, after: str, out: Path | None, fail_on_regression: bool) -> None:
    """Say what changed from run BEFORE to run AFTER: folders, names in outputs/, or 'latest'.

    Measurements that both runs made are improved, regressed, unchanged or inconclusive; the page
    says by which rule.
    """
    from workbook import compare_report
    from workbook.compare import compare as compared

    found = compared(_folder(before), _folder(after))
    page = out or paths.outputs_dir() / f"compare-{found.before.name}-{found.after.name}.html"
    compare_report.write(found, page)
    compare_report.show(found, Console())
    click.echo(f"Comparison: {paths.relative(page)}")
    sys.exit(int(fail_on_regression and found.regressed))


def _listed(kind: type) -> Callable[..., tuple]:
    """Return a callback that splits ``a,b`` into values of a kind."""

    def split(context: click.Context, option: click.Parameter, text: str) -> tuple:
        words = [word.strip() for word in (text or "").split(",") if word.strip()]
        try:
            return tuple(kind(word) for word in words)
        except ValueError:
            raise click.BadParameter(f"{text!r} is no list of whole numbers") from None

    return split


@main.command()
@click.option("--models", callback=_listed(str), metavar="A,B", help="Networks of the zoo.")
@click.option("--batch", callback=_listed(int), metavar="1,8", help="Images in one inference.")
@click.option("--threads", callback=_listed(int), metavar="1,2", help="Threads of every framework.")
@click.option("--peers", callback=_listed(str), metavar="A,B", help="Frameworks beside ours.")
@click.option("--rounds", type=int, default=12, show_default=True, help="Interleaved rounds.")
@click.option("--target", default="native", show_default=True, help="CPU ours is compiled for.")
@click.option("--isa", default="", metavar="avx2", help="Keep ours and OpenVINO to these.")
@click.option("--weights", default="", help="As for relaxquant.zoo.load_model.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="The run's folder. [outputs/<UTC time>-bench]",
)
@_plain_errors
def bench(batch: tuple[int, ...], **options: Any) -> None:
    """Time ours against other frameworks: one table, and one CSV in the run's folder."""
    from workbook.bench import Request, run

    run(Request(batches=batch, **options), Console())


def _folder(run: str) -> Path:
    if Path(run).is_dir():
        return Path(run)
    if run == "latest":
        return state.latest(paths.outputs_dir())
    if (paths.outputs_dir() / run).is_dir():
        return paths.outputs_dir() / run
    from workbook.errors import hint

    runs = sorted(path.parent.name for path in paths.outputs_dir().glob(f"*/{state.FILE}"))
    raise WorkbookError(f"no run {run!r}: {hint(run, ['latest', *runs])}")
