"""The explorer's panel: choose with ipywidgets, read below; without a screen, the first choice."""

from __future__ import annotations

import base64
import html
import os
from typing import TYPE_CHECKING, Any

import pandas as pd

import relaxquant as rq
from relaxquant import zoo
from relaxquant.errors import RelaxQuantError
from workbook import explore, explore_plots, paths, tables
from workbook.explore import BATCHES, WIDTHS, Choice, schedules

if TYPE_CHECKING:
    from workbook.context import Run
    from workbook.explore import Explorer, Found

WHOLE = "whole network"
RATES = "GMAC/s of each layer; the black line above it is what the machine allows"
SEEN = "What fp32 and the choice see; green frame: right, orange: wrong"


class Panel:
    """Widgets that run what is chosen as soon as it is chosen.

    Parameters
    ----------
    explorer : Explorer
        Measures, and keeps what it measured.
    first : Choice
        What is shown at the start.
    models : sequence of str, optional
        Networks to choose from; default: the zoo's.

    Attributes
    ----------
    widget : ipywidgets.Widget
        The whole panel.
    model, width, schedule, batch, layer : ipywidgets.Widget
        What is chosen.
    again, prove : ipywidgets.Button
        Measure once more; read the generated code.
    status, sentence, rates, kernels, proof, pictures : ipywidgets.HTML
        What is shown.
    """

    def __init__(self, explorer: Explorer, first: Choice, models: Any = None) -> None:
        import ipywidgets

        self.explorer = explorer
        self._quiet = False
        names = list(dict.fromkeys([first.model, *(models or zoo.list_models())]))
        wide = ipywidgets.Layout(width="24rem", max_width="100%")
        self.model, self.schedule, self.layer = (
            ipywidgets.Dropdown(options=options, value=value, description=name, layout=wide)
            for name, options, value in (
                ("model", names, first.model),
                ("schedule", schedules(), first.schedule),
                ("layer", [(WHOLE, "")], ""),
            )
        )
        self.width, self.batch = (
            ipywidgets.SelectionSlider(
                options=sorted({*options, value}, key=[*options, value].index), value=value,
                description=name, continuous_update=False, layout=wide,
            )
            for name, options, value in (
                ("bits", WIDTHS, first.width),
                ("batch", BATCHES, first.batch),
            )
        )  # fmt: skip
        self.again = ipywidgets.Button(description="Measure again")
        self.prove = ipywidgets.Button(description="Prove it")
        self.status, self.sentence, self.rates, self.kernels, self.proof, self.pictures = (
            ipywidgets.HTML() for _ in range(6)
        )
        self._watch()
        self.widget = ipywidgets.VBox([
            ipywidgets.Box(
                [self.model, self.width, self.schedule, self.batch, self.layer],
                layout=ipywidgets.Layout(flex_flow="row wrap"),
            ),
            ipywidgets.HBox([self.again, self.prove, self.status]),
            self.sentence, self.rates, self.kernels, self.proof, self.pictures,
        ])  # fmt: skip
        self.update()

    @property
    def choice(self) -> Choice:
        """What the widgets say."""
        return Choice(self.model.value, self.width.value, self.schedule.value, self.batch.value)

    def update(self, again: bool = False) -> None:
        """Measure what is chosen, and show it; what the library refuses is said instead."""
        self._say(f"{_words(self.choice)} …")
        self.proof.value = ""
        try:
            found = self.explorer.find(self.choice, again)
        except RelaxQuantError as error:
            self._say(str(error), bad=True)
            return
        self._offer(found)
        self._show(found)
        self.pictures.value = _picture(explore_plots.png(explore_plots.pictures(found)), SEEN)
        self._say("")

    def show_proof(self) -> None:
        """Read from the generated code what each layer multiplies."""
        self._say("reading the generated code …")
        try:
            text = str(rq.proof(self.explorer.library(self.choice)))
        except RelaxQuantError as error:
            self._say(str(error), bad=True)
            return
        self.proof.value = f"<pre style='overflow:auto'>{html.escape(text)}</pre>"
        self._say("")

    def _watch(self) -> None:
        for widget in (self.model, self.width, self.schedule, self.batch):
            widget.observe(lambda _: self.update(), names="value")
        self.layer.observe(lambda _: self._layer_chosen(), names="value")
        self.again.on_click(lambda _: self.update(again=True))
        self.prove.on_click(lambda _: self.show_proof())

    def _layer_chosen(self) -> None:
        # While the layers of another network are being offered there is nothing to show yet.
        if not self._quiet:
            self._show(self.explorer.find(self.choice))

    def _offer(self, found: Found) -> None:
        """Offer the layers that ran; the one that was chosen stays if it is still there."""
        names = [(WHOLE, ""), *((each.name, each.time.record.layer) for each in found.layers)]
        if tuple(self.layer.options) == tuple(names):
            return
        chosen = self.layer.value
        self._quiet = True
        self.layer.options = names
        self.layer.value = chosen if chosen in dict(names).values() else ""
        self._quiet = False

    def _show(self, found: Found) -> None:
        lines = [
            each.line()
            for each in found.layers
            if self.layer.value in ("", each.time.record.layer)
        ]  # fmt: skip
        text = found.sentence() if not self.layer.value else layer_sentence(lines[0])
        self.sentence.value = f"<p style='font-size:1.1em'>{html.escape(text, quote=False)}</p>"
        figure = explore_plots.rates(found, self.layer.value)
        self.rates.value = _picture(explore_plots.png(figure), RATES)
        table = tables.styled(pd.DataFrame(lines), "What runs").to_html()
        # JupyterLab's class for tables that come from a cell: else their columns touch.
        style = "class='jp-RenderedHTMLCommon' style='max-height:24rem;overflow:auto'"
        self.kernels.value = f"<div {style}>{table}</div>"

    def _say(self, text: str, bad: bool = False) -> None:
        colour = "#a63a00" if bad else "inherit"
        self.status.value = f"<span style='color:{colour}'>{html.escape(text, quote=False)}</span>"


def show(run: Run, explorer: Explorer, first: Choice) -> Panel | None:
    """Show the panel; in a run without a screen, keep the first choice's figure and table instead.

    Parameters
    ----------
    run : workbook.context.Run
        The notebook's run.
    explorer : Explorer
        Measures.
    first : Choice
        What is shown at the start.

    Returns
    -------
    Panel or None
        None without a screen.
    """
    if not os.environ.get(paths.RUN_VARIABLE):
        from IPython.display import display

        panel = Panel(explorer, first)
        display(panel.widget)
        return panel
    found = explorer.find(first)
    how = f"median of instrumented runs, {run.threads} threads"
    caption = f"{RATES}: {_words(first)}"
    run.figure(
        explore_plots.rates(found), "rates", caption=caption, of=found.net, n=explore.REPEATS,
        protocol=how,
    )  # fmt: skip
    lines = [layer.line() for layer in found.layers]
    run.table(lines, f"What runs: {_words(first)}", of=found.net, name="kernels")
    shown = min(len(found.captions), explore_plots.PICTURES)
    run.figure(
        explore_plots.pictures(found), "pictures", caption=SEEN, of=found.net, n=shown, protocol=""
    )
    return None


def layer_sentence(line: dict[str, Any]) -> str:
    """One layer in words, from its line of the table."""
    return (
        f"{line['layer']}, {line['shape']}: {line['time (µs)']:.3g} µs, {line['GMAC/s']:.0f} "
        f"GMAC/s of {line['limit (GMAC/s)']:.0f} that {line['limited by']} allows; "
        f"{line['schedule']}, {line['multiplied by']}."
    )


def _words(choice: Choice) -> str:
    return f"{choice.model}, {choice.width}, {choice.schedule}, batch {choice.batch}"


def _picture(png: bytes, words: str) -> str:
    data = base64.b64encode(png).decode()
    source = f"data:image/png;base64,{data}"
    return f"<img alt='{html.escape(words)}' style='max-width:100%;background:#fff' src='{source}'>"
