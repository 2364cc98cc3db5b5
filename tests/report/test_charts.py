import re
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from calltune.report import charts
from calltune.report.charts import BarChart, Bars, curves, ticks


def drawn(macro: str, *given: Any) -> str:
    """What the page's template makes of a chart."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("calltune.report", "."), autoescape=True, undefined=StrictUndefined
    )
    template = environment.get_template("charts.html.j2")
    return str(getattr(template.module, macro)(*given))


def svg(chart: charts.LineChart | None) -> str:
    sizes = (charts.WIDTH, charts.HEIGHT, charts.LEFT, charts.RIGHT)
    return drawn("lines", chart, *sizes).strip()


def texts(markup: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(markup).iter()]


def test_bars_are_as_long_as_their_values_with_their_intervals() -> None:
    rows = [Bars("first", 10, 40, (5, 20), (30, 50)), Bars("second", 0, 100)]
    html = drawn("bars", BarChart("By kind", rows, "%"))
    assert re.findall(r'<i style="width: ([\d.]+)%">', html) == ["10.00", "40.00", "0.00", "100.00"]
    ends = re.findall(r'<u style="left: ([\d.]+)%; width: ([\d.]+)%">', html)
    assert ends == [("5.00", "15.00"), ("30.00", "20.00")]
    assert html.count('class="bar base"') == html.count('class="bar tuned"') == 2
    assert re.findall(r"<span>(.*?)</span>", html) == ["10 %", "40 %", "0 %", "100 %"]


def test_counts_are_drawn_to_the_largest_and_written_whole() -> None:
    rows = [Bars("cut off", 2_000, 1_000), Bars("no call", 500, 0)]
    html = drawn("bars", BarChart("Why not", rows, "examples"))
    assert re.findall(r"<i style=\"width: ([\d.]+)%", html) == ["100.00", "50.00", "25.00", "0.00"]
    assert re.findall(r"<span>(.*?)</span>", html) == ["2,000", "1,000", "500", "0"]
    assert "Number of examples." in html


def test_names_are_text_and_no_markup() -> None:
    html = drawn("bars", BarChart("t", [Bars("<script>alert(1)</script> & $x", 1, 2)], "examples"))
    assert "<script" not in html and "alert(1)" in html


RECORDS = [
    {"step": 0, "val_loss": 2.0},
    {"step": 10, "train_loss": 1.0, "learning_rate": 1e-4},
    {"step": 20, "train_loss": 0.5, "learning_rate": 1e-4},
    {"step": 20, "val_loss": 0.6},
]


def test_curves_show_losses_and_rates_by_step() -> None:
    chart = curves("Training", RECORDS)
    assert chart is not None
    loss, rate = chart.plots
    assert [line.name for line in loss.lines] == ["training", "validation"]
    training, validation = (line.points for line in loss.lines)
    assert training[0][0] == (validation[0][0] + validation[1][0]) / 2
    # The largest loss is at the top, and half of it in the middle.
    assert validation[0][1] == loss.top and training[0][1] == (loss.top + loss.bottom) / 2
    assert rate.lines[0].points[0][1] == rate.top
    markup = svg(chart)
    assert {"loss (nats per token)", "learning rate", "step", "20", "0.0001"} <= set(texts(markup))
    assert markup.startswith('<svg role="img" aria-label="Training"')
    assert markup.count("<polyline") == 3 and svg(curves("Training", RECORDS)) == markup


def test_there_are_no_curves_without_a_loss() -> None:
    assert curves("t", RECORDS[:1]) is None and curves("t", []) is None
    assert curves("t", [{"step": 1, "train_loss": float("nan")}]) is None


def test_curves_pass_over_a_loss_that_is_not_finite() -> None:
    broken = {"step": 30, "train_loss": float("inf"), "learning_rate": 1e-4}
    chart = curves("t", [*RECORDS, broken])
    assert chart is not None and len(chart.plots[0].lines[0].points) == 2
    assert "inf" not in svg(chart) and "nan" not in svg(chart)


def test_one_step_and_a_loss_of_nothing_are_drawn() -> None:
    chart = curves("t", [{"step": 5, "train_loss": 0.0}])
    assert chart is not None and "<circle" in svg(chart)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 2.0, [0, 1, 2]),
        (0, 10, [0, 5, 10]),
        (0, 1e-4, [0, 5e-5, 1e-4]),
        (3, 3, [3]),
        (10, 600, [200, 400, 600]),
    ],
)
def test_ticks_are_round_values(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 3) == pytest.approx(expected)
