"""Interleaved rounds: a block of one engine, then of the next, in another order each round."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from engine_process import EngineFailed, EngineProcess
from settings import Setting

import report

SETTLE_STEPS = 1
"""Steps before a block that are not counted: the engine gave its spare memory back before."""


class EngineRounds:
    """The measurements of one engine; an engine that failed is not asked again."""

    def __init__(self, setting: Setting, process: EngineProcess) -> None:
        self.name = process.name
        self._setting = setting
        self._process = process
        self._is_capped = process.plan.cut_to is not None
        self._blocks: list[dict[str, Any]] = []
        self._validations: list[dict[str, Any]] = []
        self._found: dict[str, Any] = {"engine": self.name}
        self._details: dict[str, Any] = {}

    def load(self) -> None:
        """Wait until the engine has its model, and fills its caches if it has any."""
        self._details = self._process.ask("details")

    def warm_up(self) -> None:
        """Run the steps in which engines compile."""
        if self._is_capped:
            return
        block = self._process.ask("steps", self._setting.warm_up_steps)
        self._found["warm_up_s"] = round(block["seconds"], 2)
        self._process.ask("release")

    def train(self) -> None:
        """Measure one block."""
        if self._is_capped:
            if not self._blocks:
                self._blocks.append(self._process.ask("steps", 1))
            return
        self._process.ask("steps", SETTLE_STEPS)
        self._blocks.append(self._process.ask("steps", self._setting.steps))
        self._found |= self._process.ask("report")
        self._process.ask("release")

    def validate(self) -> None:
        """Measure one validation."""
        if not (self._is_capped and self._validations):
            self._validations.append(self._process.ask("validate"))
            self._process.ask("release")

    def attempt(self, what: Callable[["EngineRounds"], None]) -> None:
        """Do one of the above, or note why the engine failed."""
        if "failed" in self._found:
            return
        try:
            what(self)
        except EngineFailed as failure:
            self._found["failed"] = str(failure)
            self._process.stop()
            print(f"{self.name} failed: {failure}", flush=True)

    @property
    def has_result(self) -> bool:
        """Whether there is a round, or a failure, to report."""
        return bool(self._blocks) or "failed" in self._found

    def stop(self) -> None:
        """End the engine's process."""
        self._process.stop()

    def result(self) -> dict[str, Any]:
        """All of it as JSON."""
        found = self._details | self._found
        if self._blocks:
            found |= report.summary(self._blocks)
            speed = found["tokens_per_second"]["median"]
            found["effective_tokens_per_second"] = report.effective(speed, self._details)
        if self._validations:
            found |= report.validation_summary(self._validations)
        if self._process.plan.weights == "4-bit":
            found["precision"] = "bfloat16, weights in 4 bits"
        if self._is_capped:
            cut_to = self._process.plan.cut_to
            found["capped"] = (
                f"one step, and one validation batch, of rows cut to {cut_to} tokens, without "
                "warm-up; whole rows have more attention to compute a token"
            )
        return found


def measure(engines: Sequence[Callable[[], EngineProcess]], setting: Setting) -> list[Any]:
    """The results of each engine, as JSON, without versions and machine.

    Engines are started one after the other, so that none loads while another is timed. An
    interrupt ends the rounds; what was measured until then counts, and says how many they were.
    """
    running: list[EngineRounds] = []
    try:
        for start in engines:
            running.append(EngineRounds(setting, start()))
            _say(f"loading {running[-1].name}")
            running[-1].attempt(EngineRounds.load)
        for engine in running:
            _say(f"warming up {engine.name}")
            engine.attempt(EngineRounds.warm_up)
        for index, engine in interleaved(running, setting.rounds):
            _say(f"round {index + 1}: {engine.name}")
            engine.attempt(EngineRounds.train)
        for index, engine in interleaved(running, setting.validation_rounds):
            _say(f"validation {index + 1}: {engine.name}")
            engine.attempt(EngineRounds.validate)
    except KeyboardInterrupt:
        _say("interrupted: these are the rounds that were done")
    finally:
        for engine in running:
            engine.stop()
    return [engine.result() for engine in running if engine.has_result]


def interleaved(engines: Sequence[Any], rounds: int) -> Iterator[tuple[int, Any]]:
    """Every engine once a round; each round begins with another, so that drift hits all alike."""
    for index in range(rounds):
        first = index % len(engines)
        for engine in [*engines[first:], *engines[:first]]:
            yield index, engine


def _say(text: str) -> None:
    print(text, flush=True)
