import xml.etree.ElementTree as ElementTree

from calltune.report.charts import VARIABLES, Bars, bars, curves

SVG = "{http://www.w3.org/2000/svg}"


def texts(svg: str) -> list[str]:
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_bars_are_drawn_in_the_colours_of_the_page() -> None:
    rows = [Bars("first", 10, 40, (5, 20), (30, 50)), Bars("second", 0, 100)]
    svg = bars("By kind", rows, "%")
    assert {"first", "second", "%", "100"} <= set(texts(svg))
    assert svg.startswith('<svg role="img" aria-label="By kind"')
    for stand_in, variable in VARIABLES.items():
        assert variable in svg and stand_in not in svg
    # Two bars for each name.
    assert svg.count("fill: var(--base)") == svg.count("fill: var(--tuned)") == 2


def test_the_same_bars_give_the_same_text() -> None:
    rows = [Bars("a", 1, 2)]
    assert bars("t", rows, "examples") == bars("t", rows, "examples")


def test_names_are_text_and_no_markup() -> None:
    svg = bars("t", [Bars("<script>alert(1)</script> & $x_1$", 1, 2)], "examples")
    assert "<script" not in svg
    assert any("alert(1)" in text for text in texts(svg))


def test_curves_show_losses_and_rates_by_step() -> None:
    records = [
        {"step": 0, "val_loss": 2.0},
        {"step": 10, "train_loss": 1.0, "learning_rate": 1e-4},
        {"step": 20, "train_loss": 0.5, "learning_rate": 1e-4},
        {"step": 20, "val_loss": 0.6},
    ]
    svg = curves(records)
    assert svg is not None
    assert {"training", "validation", "loss, nats a token", "learning rate"} <= set(texts(svg))
    assert curves(records[:1]) is None and curves([]) is None


def test_examples_are_counted_whole() -> None:
    svg = bars("Why not", [Bars("cut off", 3, 1), Bars("no call", 2, 0)], "examples")
    assert {"0", "1", "2", "3"} <= set(texts(svg)) and not any("." in text for text in texts(svg))
