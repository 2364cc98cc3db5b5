"""The report's charts as SVG text, drawn by matplotlib in the colours of the page around them."""

import io
import re
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from calltune.types import Json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Stand-ins that no chart has by chance; the page's variables take their places.
INK, GRID, BASE, TUNED = "#010203", "#020304", "#030405", "#040506"
VARIABLES = {INK: "var(--ink)", GRID: "var(--line)", BASE: "var(--base)", TUNED: "var(--tuned)"}
WIDTH = 5.6
"""Inches; the page scales it, and on a phone its letters must still be read."""


class Bars(NamedTuple):
    """Two bars beside each other, base and tuned, under one name."""

    name: str
    base: float
    tuned: float
    base_ends: tuple[float, float] | None = None
    """Of the 95 % interval, where there is one."""
    tuned_ends: tuple[float, float] | None = None


def bars(title: str, rows: Sequence[Bars], unit: str) -> str:
    """Horizontal pairs of bars; `unit` says what is counted."""
    figure, axes = _figure(0.55 * len(rows) + 0.9)
    height = 0.38
    for place, row in enumerate(reversed(rows)):
        for offset, value, ends, colour in (
            (height / 2, row.base, row.base_ends, BASE),
            (-height / 2, row.tuned, row.tuned_ends, TUNED),
        ):
            axes.barh(place + offset, value, height, color=colour)
            if ends is not None:
                axes.plot(ends, (place + offset,) * 2, color=INK, linewidth=1)
    axes.set_yticks(range(len(rows)), [row.name for row in reversed(rows)])
    for label in axes.get_yticklabels():
        # A dollar sign in a name is one, and begins no formula.
        label.set_parse_math(False)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlabel(unit)
    axes.set_xlim(left=0)
    # Examples are counted whole.
    axes.xaxis.get_major_locator().set_params(integer=True)
    if unit == "%":
        axes.set_xlim(0, 100)
    return _svg(figure, title)


def curves(records: Iterable[dict[str, Json]]) -> str | None:
    """Loss, and the learning rate below it, by step, from metrics.jsonl; None without a loss."""
    lines = list(records)
    losses = [(line["step"], line["train_loss"]) for line in lines if "train_loss" in line]
    valid = [(line["step"], line["val_loss"]) for line in lines if "val_loss" in line]
    if not losses:
        return None
    figure, (above, below) = _figure(3.6, rows=2)
    above.plot(*zip(*losses, strict=True), color=TUNED, label="training")
    if valid:
        above.plot(*zip(*valid, strict=True), color=BASE, marker="o", label="validation")
    above.set_ylabel("loss, nats a token")
    above.set_ylim(bottom=0)
    above.legend(frameon=False, labelcolor=INK)
    rates = [(line["step"], line["learning_rate"]) for line in lines if "learning_rate" in line]
    below.plot(*zip(*rates, strict=True), color=INK, linewidth=1)
    below.set_ylabel("learning rate")
    below.set_ylim(bottom=0)
    below.set_xlabel("step")
    return _svg(figure, "Loss and learning rate by step")


def _figure(height: float, rows: int = 1) -> "tuple[Figure, Any]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    ratios = (3, 1)[:rows]
    axes = figure.subplots(rows, 1, sharex=True, gridspec_kw={"height_ratios": ratios})
    for each in [axes] if rows == 1 else axes:
        _plain(each)
    return figure, axes


def _plain(axes: "Axes") -> None:
    axes.set_facecolor("none")
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=INK, length=0)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "bottom")
        spine.set_color(GRID)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set_color(INK)


def _svg(figure: "Figure", title: str) -> str:
    """The figure as an <svg> element that reads its colours and fonts from the page."""
    import matplotlib

    out = io.StringIO()
    # Text as text; names within the drawing as they were in every run.
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": title}),
        warnings.catch_warnings(),
    ):
        # The browser draws the text, with its own fonts.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Title": title})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, variable)
    return text.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
