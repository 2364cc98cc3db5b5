import pytest

from calltune.training.schedule import LearningRate

KINDS = pytest.mark.parametrize("kind", ["constant", "linear", "cosine"])


def rates(rate: LearningRate) -> list[float]:
    return [rate.at(update) for update in range(rate.total)]


def test_a_constant_rate_is_the_peak_from_the_first_update_on() -> None:
    assert rates(LearningRate(0.5, total=4)) == [0.5] * 4


@KINDS
def test_a_warm_up_rises_evenly_to_the_peak(kind: str) -> None:
    rate = LearningRate(1.0, kind, warmup=4, total=20)  # type: ignore[arg-type]
    assert rates(rate)[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize("kind", ["linear", "cosine"])
@pytest.mark.parametrize("warmup", [0, 5])
def test_a_decay_falls_from_the_peak_towards_0_and_is_half_in_the_middle(
    kind: str, warmup: int
) -> None:
    rate = LearningRate(2.0, kind, warmup, total=warmup + 10)  # type: ignore[arg-type]
    falling = rates(rate)[warmup:]
    assert falling[0] == 2.0 and falling[5] == pytest.approx(1.0)
    assert all(one > other > 0 for one, other in zip(falling, falling[1:], strict=False))
    assert rate.at(warmup + 10) == pytest.approx(0.0)


def test_a_linear_decay_is_even_and_a_cosine_slow_at_its_ends() -> None:
    linear, cosine = (LearningRate(1.0, kind, total=8) for kind in ("linear", "cosine"))
    assert rates(linear) == pytest.approx([1 - n / 8 for n in range(8)])
    assert cosine.at(1) > linear.at(1) and cosine.at(7) < linear.at(7)


@KINDS
@pytest.mark.parametrize("warmup", [0, 3, 10, 30])
def test_a_rate_is_never_above_the_peak_or_below_0(kind: str, warmup: int) -> None:
    rate = LearningRate(3.0, kind, warmup, total=10)  # type: ignore[arg-type]
    assert all(0 <= rate.at(update) <= 3.0 for update in range(40))
