"""Geometry of the report's charts; `charts.html.j2` draws them as HTML bars and an SVG."""

from collections.abc import Iterable, Sequence
from math import floor, isfinite, log10
from typing import NamedTuple

from calltune.types import Json

WIDTH = 400
"""Of the line chart in SVG units, few enough that its text can be read on a phone."""
LEFT, RIGHT = 64, 12
"""Margins beside the plots."""
PLOTS = ((12, 130), (172, 56))
"""Top and height of each plot."""
HEIGHT = 268


class Bars(NamedTuple):
    """Two bars under one name, base and tuned."""

    name: str
    base: float
    tuned: float
    base_ends: tuple[float, float] | None = None
    """Of the 95 % interval, where there is one."""
    tuned_ends: tuple[float, float] | None = None


class BarChart(NamedTuple):
    """Pairs of horizontal bars."""

    title: str
    rows: Sequence[Bars]
    unit: str
    """"%", or what is counted."""

    @property
    def scale(self) -> float:
        """The value of a bar as long as the chart is wide."""
        return (
            100 if self.unit == "%" else max((max(r.base, r.tuned) for r in self.rows), default=1)
        )


class Tick(NamedTuple):
    """A labelled place on an axis."""

    at: float
    """In SVG units."""
    label: str


class Line(NamedTuple):
    """A line through measured points."""

    name: str
    points: Sequence[tuple[float, float]]
    """In SVG units."""


class Plot(NamedTuple):
    """One of the plots of a line chart, which stand below each other."""

    label: str
    top: float
    bottom: float
    lines: Sequence[Line]
    ticks: Sequence[Tick]


class LineChart(NamedTuple):
    """Plots over one horizontal axis of training steps."""

    title: str
    plots: Sequence[Plot]
    ticks: Sequence[Tick]


Points = list[tuple[float, float]]


def curves(title: str, records: Iterable[dict[str, Json]]) -> LineChart | None:
    """Loss, and the learning rate below it, by step; None where no loss was recorded.

    Args:
        title: The chart's title.
        records: The lines of metrics.jsonl, which `calltune train` writes.

    Raises:
        KeyError: a line has no step.
        TypeError: a value is not a number.
    """
    lines = list(records)
    training, validation, rates = (
        _points(lines, key) for key in ("train_loss", "val_loss", "learning_rate")
    )
    if not training:
        return None
    steps = [step for points in (training, validation, rates) for step, _ in points]
    first, last = min(steps), max(steps)

    def x(step: float) -> float:
        return LEFT + (step - first) / ((last - first) or 1) * (WIDTH - LEFT - RIGHT)

    def plot(label: str, place: tuple[float, float], named: dict[str, Points]) -> Plot:
        top, height = place
        high = max((value for points in named.values() for _, value in points), default=0) or 1

        def y(value: float) -> float:
            return top + height * (1 - value / high)

        made = [Line(name, [(x(s), y(v)) for s, v in points]) for name, points in named.items()]
        marks = [Tick(y(value), f"{value:g}") for value in ticks(0, high, 3)]
        return Plot(label, top, top + height, [line for line in made if line.points], marks)

    losses = {"training": training, "validation": validation}
    plots = [plot("loss (nats per token)", PLOTS[0], losses)]
    if rates:
        plots.append(plot("learning rate", PLOTS[1], {"rate": rates}))
    return LineChart(title, plots, [Tick(x(step), f"{step:g}") for step in ticks(first, last, 5)])


def ticks(low: float, high: float, n_most: int) -> list[float]:
    """Round values from `low` to `high`, at most about `n_most` steps apart."""
    wanted = (high - low) / n_most
    if wanted <= 0:
        return [low]
    power = 10.0 ** floor(log10(wanted))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= wanted * 0.999)
    first = -floor(-low / step)
    return [round(n * step, 12) for n in range(first, floor(high / step + 1e-9) + 1)]


def _points(lines: Sequence[dict[str, Json]], key: str) -> Points:
    return [(line["step"], line[key]) for line in lines if key in line and isfinite(line[key])]
