"""What a notebook holds of its run: where results go, what was asked, how to show and keep them."""

from __future__ import annotations

import os
import re
import string
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from workbook import display, figures, notes, paths, store, tables, threads
from workbook.errors import WorkbookError, hint

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

PROFILES = ("quick", "full")
T = TypeVar("T")


class Weighted(Protocol):
    """A network, or what was made of one."""

    trained: bool


class Run:
    """One notebook's part of a run.

    Attributes
    ----------
    notebook : str
        The notebook's name without suffix, ``03_graph_int8`` say.
    dir : pathlib.Path
        The run's folder.
    profile : str
        ``quick`` or ``full``.
    parameters : dict
        The notebook's parameters.
    threads : int
        The thread count that holds for every framework.
    machine : str
        Short name of the machine, as in the ``machine`` column and the captions.
    protocol : str
        How times were taken, for captions; made from the parameters, may be assigned.
    """

    def __init__(self, notebook: str, folder: Path, parameters: Mapping[str, Any]) -> None:
        self.notebook = notebook
        self.dir = Path(folder).resolve()
        self.parameters = dict(parameters)
        self.profile = _profile(self.parameters.get("profile", "quick"))
        self.threads = threads.fix(self.parameters.get("threads"))
        self.machine = _machine()
        self.protocol = _protocol(self.parameters, self.threads)
        store.start(self._rows)
        notes.start(self._notes)

    @property
    def quick(self) -> bool:
        """Whether this is a quick run."""
        return self.profile == "quick"

    def pick(self, *, quick: T, full: T) -> T:
        """Return the one of two values that belongs to the run's profile."""
        return quick if self.quick else full

    def record(self, **columns: Any) -> None:
        """Keep one result row; ``notebook`` and ``machine`` are filled in.

        Parameters
        ----------
        **columns
            Columns of `workbook.store.COLUMNS`: ``metric``, ``value`` and ``unit`` always; with
            ``model`` also ``trained``.

        Raises
        ------
        WorkbookError
            As `workbook.store.check_row`.
        """
        store.append(self._rows, {"notebook": self.notebook, "machine": self.machine, **columns})

    def rows(self, **equal: Any) -> list[store.Row]:
        """Return the rows kept so far whose columns equal the given ones."""
        return [row for row in store.read(self._rows) if _matches(row, equal)]

    def table(
        self,
        data: pd.DataFrame | Sequence[Mapping[str, Any]],
        caption: str,
        *,
        of: Weighted | Sequence[Weighted] = (),
        name: str | None = None,
        digits: int = 3,
    ) -> None:
        """Show a short styled table and keep it as CSV under ``tables/``.

        Parameters
        ----------
        data : pandas.DataFrame or sequence of mappings
            A table, units in its headers; or result rows, which are spread out.
        caption : str
            One sentence.
        of : object or sequence of objects
            Networks whose results these are: random weights are said in the caption.
        name : str, optional
            File name without suffix; made from the caption where left out.
        digits : int
            Significant digits shown; the CSV keeps all.

        Raises
        ------
        WorkbookError
            Where there is nothing to show, or `name` makes no file name.
        """
        frame = tables.to_frame(data)
        if frame.empty:
            raise WorkbookError(f"table {caption!r} has no rows: nothing was recorded for it")
        path = self._file("tables", name or _slug(caption), "csv")
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)
        said = _with_weights(caption, of)
        notes.put(self._notes, "tables", path.stem, {"file": path.name, "caption": said})
        display.show_table(tables.styled(frame, said, digits), frame)

    def figure(
        self,
        figure: Figure,
        name: str,
        *,
        caption: str,
        of: Weighted | Sequence[Weighted] = (),
        n: int | str | None = None,
        protocol: str | None = None,
    ) -> None:
        """Show a figure, close it, and keep it as PNG and SVG under ``figures/``.

        Parameters
        ----------
        figure : matplotlib.figure.Figure
            What to keep.
        name : str
            File name without suffix; the notebook's name is put before it.
        caption : str
            What the figure shows; machine, `n` and protocol are added to it.
        of : object or sequence of objects
            As for `table`.
        n : int or str, optional
            How many samples or images a point stands for.
        protocol : str, optional
            In the place of the run's; ``""`` where nothing in the figure was timed.

        Raises
        ------
        WorkbookError
            Where `figure` is no figure, or `name` makes no file name.
        """
        stem = self._file("figures", name, "png").stem
        png, svg = figures.save(figure, self.dir / "figures", stem)
        how = self.protocol if protocol is None else protocol
        parts = [self.machine, f"n = {n}" if n is not None else "", how]
        said = _with_weights(caption.rstrip(". "), of)
        full = f"{said}. {'; '.join(part for part in parts if part)}."
        entry = {"png": png.name, "svg": svg.name, "caption": full}
        notes.put(self._notes, "figures", stem, entry)
        display.show_figure(figure, png, full)

    def headline(
        self,
        text: str,
        *,
        metrics: Sequence[str] = (),
        where: Mapping[str, Any] | None = None,
        **values: Any,
    ) -> None:
        """Say one sentence, here and on the report's first screen, and flag its rows.

        Parameters
        ----------
        text : str
            A sentence with ``{name:.2f}`` fields; figures come in through `values`.
        metrics : sequence of str
            Metrics whose rows of this notebook are shown in the report's headline table.
        where : mapping, optional
            Column -> value that such a row must have, ``{"batch": 1}`` say.
        **values
            Values of the fields.

        Raises
        ------
        WorkbookError
            For a field without value, a value without field, and a metric of which no row fits.
        """
        where = dict(where or {})
        sentence = _fill(text, values)
        rows = [row for metric in metrics for row in self._recorded(metric, where)]
        label = _untrained([row["trained"] is False for row in rows])
        entry = {"text": sentence, "metrics": list(metrics), "where": where, "label": label}
        # The template names the headline, so that a cell run twice does not say it twice.
        notes.put(self._notes, "headlines", text, entry)
        display.show_sentence(sentence)

    @property
    def _rows(self) -> Path:
        return rows_file(self.dir, self.notebook)

    @property
    def _notes(self) -> Path:
        return notes_file(self.dir, self.notebook)

    def _file(self, folder: str, name: str, suffix: str) -> Path:
        if _slug(name, lower=False) != name:
            raise WorkbookError(f"{name!r} makes no file name: use letters, digits, '_' and '-'")
        return self.dir / folder / f"{self.notebook}-{name}.{suffix}"

    def _recorded(self, metric: str, where: Mapping[str, Any]) -> list[store.Row]:
        for column in where:
            if column not in store.COLUMNS:
                known = hint(column, store.COLUMNS)
                raise WorkbookError(f"headline: unknown column {column!r}: {known}")
        rows = self.rows(metric=metric, **where)
        if not rows:
            known = hint(metric, sorted({row["metric"] for row in self.rows()}))
            limit = f" where {dict(where)}" if where else ""
            raise WorkbookError(f"headline: no row of metric {metric!r}{limit}: {known}")
        return rows


def start(notebook: str, **parameters: Any) -> Run:
    """Begin a notebook's part of a run: fix the threads, empty its rows, set the figure style.

    Under the runner results go to the run's folder; in JupyterLab and under plain papermill they
    go to ``outputs/interactive/``.

    Parameters
    ----------
    notebook : str
        The notebook's own name, without suffix.
    **parameters
        Its parameters; ``profile`` and ``threads`` are used here.

    Raises
    ------
    WorkbookError
        For a name that is not the one being run, an unknown profile or a bad thread count.
    """
    running = os.environ.get(paths.NOTEBOOK_VARIABLE)
    if running and running != notebook:
        raise WorkbookError(
            f"this notebook is run as {running!r} but starts as {notebook!r}: "
            "pass its own file name, without suffix"
        )
    if not re.fullmatch(r"[\w-]+", notebook):
        raise WorkbookError(f"{notebook!r} is no notebook name: letters, digits, '_' and '-'")
    folder = os.environ.get(paths.RUN_VARIABLE)
    figures.use_style()
    return Run(notebook, Path(folder) if folder else paths.interactive_dir(), parameters)


def rows_file(folder: Path, notebook: str) -> Path:
    """Return where a notebook's rows lie in a run's folder."""
    return folder / "rows" / f"{notebook}.csv"


def notes_file(folder: Path, notebook: str) -> Path:
    """Return where a notebook's headlines and captions lie in a run's folder."""
    return folder / "rows" / f"{notebook}.json"


def _matches(row: Mapping[str, Any], equal: Mapping[str, Any]) -> bool:
    return all(row.get(column) == value for column, value in equal.items())


def _untrained(flags: Sequence[bool]) -> str:
    if not any(flags):
        return ""
    return "untrained" if all(flags) else "partly untrained"


def _with_weights(caption: str, of: Weighted | Sequence[Weighted]) -> str:
    networks = of if isinstance(of, Sequence) else [of]
    label = _untrained([not network.trained for network in networks])
    return f"{caption} ({label} weights)" if label else caption


def _profile(name: str) -> str:
    if name not in PROFILES:
        raise WorkbookError(f"unknown profile {name!r}: {hint(str(name), PROFILES)}")
    return name


def _machine() -> str:
    # Here and not at the top: the threads must be fixed before anything can import tvm.
    from relaxquant.measure import machine

    return machine.short_name()


def _protocol(parameters: Mapping[str, Any], count: int) -> str:
    rounds = parameters.get("rounds")
    timed = f"median of {rounds} interleaved rounds, " if rounds else ""
    return f"{timed}{count} thread{'s' if count > 1 else ''}"


def _fill(text: str, values: Mapping[str, Any]) -> str:
    names = [name for _, name, _, _ in string.Formatter().parse(text) if name is not None]
    fields = {re.split(r"[.\[]", name)[0] for name in names}
    unused = [name for name in values if name not in fields]
    if unused:
        raise WorkbookError(f"headline has no field {unused[0]!r}: {hint(unused[0], fields)}")
    try:
        return text.format(**values)
    except (KeyError, IndexError) as error:
        lacking = str(error.args[0])
        raise WorkbookError(
            f"headline field {lacking!r} has no value: {hint(lacking, values)}"
        ) from None
    except (TypeError, ValueError) as error:
        raise WorkbookError(f"headline {text!r} does not take {dict(values)}: {error}") from None


def _slug(text: str, lower: bool = True) -> str:
    slug = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")
    return slug.lower()[:60].rstrip("-") if lower else slug
