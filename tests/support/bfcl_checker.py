"""BFCL's own checker, taken out of its wheel, and answers to hold against it."""

import random
import sys
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

from calltune.downloads import fetch
from calltune.types import Json

CHECKER = "bfcl_eval.eval_checker.ast_eval.ast_checker"
Call = dict[str, dict[str, Json]]
"""One call as BFCL has it: the function's name and its arguments."""


def load_checker() -> Callable[[Json, list[Call], Json, str], bool]:
    """`ast_checker(functions, calls, ground truth, category)` for Python; whether it is content.

    Its table of models imports every vendor's client, and its converters are for other languages:
    these are left out.
    """
    stubs: dict[str, dict[str, Any]] = {
        "constants.model_config": {
            "MODEL_CONFIG_MAPPING": defaultdict(lambda: SimpleNamespace(underscore_to_dot=False))
        },
        "constants.enums": {"Language": SimpleNamespace(PYTHON="py", JAVA="java", JAVASCRIPT="js")},
        "constants.type_mappings": {"JAVA_TYPE_CONVERSION": {}, "JS_TYPE_CONVERSION": {}},
        "eval_checker.ast_eval.type_convertor.java_type_converter": {"java_type_converter": None},
        "eval_checker.ast_eval.type_convertor.js_type_converter": {"js_type_converter": None},
    }
    with zipfile.ZipFile(fetch("bfcl-eval")) as wheel:
        source = wheel.read(CHECKER.replace(".", "/") + ".py").decode()
    made = {f"bfcl_eval.{name}": values for name, values in stubs.items()}
    parents = {name.rsplit(".", depth)[0] for name in made for depth in (1, 2, 3)}
    kept = {name: sys.modules.get(name) for name in [*made, *parents]}
    checker = ModuleType(CHECKER)
    try:
        for name in [*parents, *made]:
            module = ModuleType(name)
            vars(module).update(made.get(name, {}))
            sys.modules[name] = module
        exec(compile(source, CHECKER, "exec"), vars(checker))
    finally:
        for name, module in kept.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module

    def is_valid(functions: Json, calls: list[Call], right: Json, category: str) -> bool:
        found = checker.ast_checker(functions, calls, right, "py", category, "any")
        return bool(found["valid"])

    return is_valid


def gold(ground_truth: Json, rng: random.Random) -> list[Call]:
    """Calls that the ground truth accepts: of each argument one of its values."""
    return [
        {name: _chosen(arguments, rng) for name, arguments in answer.items()}
        for answer in ground_truth
    ]


def mutated(calls: list[Call], rng: random.Random) -> Iterator[list[Call]]:
    """Answers a little beside these, one change each."""
    for change in (_spelt, _another_value, _another_type, _dropped, _added, _recalled, _reordered):
        copied = [{name: dict(arguments) for name, arguments in call.items()} for call in calls]
        yield change(copied, rng)


def _chosen(arguments: dict[str, Json], rng: random.Random) -> dict[str, Json]:
    chosen = {}
    for key, values in arguments.items():
        kept = [value for value in values if value != ""]
        if not kept or (len(kept) < len(values) and rng.random() < 0.5):
            continue
        chosen[key] = _plain(rng.choice(kept), rng)
    return chosen


def _plain(value: Json, rng: random.Random) -> Json:
    """In an object, every key of the ground truth lists what is acceptable."""
    if isinstance(value, dict):
        if all(isinstance(each, list) for each in value.values()):
            return _chosen(value, rng)
        return value
    return [_plain(item, rng) for item in value] if isinstance(value, list) else value


def _argument(calls: list[Call], rng: random.Random) -> tuple[dict[str, Json], str] | None:
    places = [
        (arguments, key) for call in calls for arguments in call.values() for key in arguments
    ]
    return rng.choice(places) if places else None


def _changed(calls: list[Call], rng: random.Random, change: Callable[[Json], Json]) -> list[Call]:
    if (place := _argument(calls, rng)) is not None:
        arguments, key = place
        arguments[key] = _somewhere(arguments[key], rng, change)
    return calls


def _somewhere(value: Json, rng: random.Random, change: Callable[[Json], Json]) -> Json:
    """The value with one change, in half of all cases inside it."""
    if isinstance(value, list) and value and rng.random() < 0.6:
        at = rng.randrange(len(value))
        return [*value[:at], _somewhere(value[at], rng, change), *value[at + 1 :]]
    if isinstance(value, dict) and value and rng.random() < 0.6:
        key = rng.choice(list(value))
        return value | {key: _somewhere(value[key], rng, change)}
    return change(value)


def _spelt(calls: list[Call], rng: random.Random) -> list[Call]:
    def change(value: Json) -> Json:
        if not isinstance(value, str):
            return value
        return rng.choice(
            [
                value.upper(),
                value.replace(" ", ""),
                value.replace("'", '"'),
                f" {value}.",
                value.replace("-", "/"),
                value.replace(",", ""),
                value.replace("_", " "),
                f"-{value}",
                value + "s",
                value[1:],
            ]
        )

    return _changed(calls, rng, change)


def _another_value(calls: list[Call], rng: random.Random) -> list[Call]:
    def change(value: Json) -> Json:
        if isinstance(value, bool):
            return not value
        if isinstance(value, int | float):
            return rng.choice([value + 1, -value, value * 10, value / 2, 0])
        if isinstance(value, str):
            return rng.choice([value[::-1], "", "something else", value + " 2"])
        if isinstance(value, list):
            return rng.choice([value[::-1], value[1:], [*value, *value[:1]], []])
        if isinstance(value, dict):
            return rng.choice([dict(list(value.items())[1:]), value | {"other": 1}, {}])
        return 1

    return _changed(calls, rng, change)


def _another_type(calls: list[Call], rng: random.Random) -> list[Call]:
    def change(value: Json) -> Json:
        others: list[Json] = [None, str(value), [value], {"value": value}, True, 1, 1.0]
        if isinstance(value, bool):
            others += [int(value)] * 4
        elif isinstance(value, int):
            others += [float(value)] * 4
        elif isinstance(value, float) and value == int(value):
            others += [int(value)] * 4
        return rng.choice(others)

    return _changed(calls, rng, change)


def _dropped(calls: list[Call], rng: random.Random) -> list[Call]:
    if (place := _argument(calls, rng)) is not None:
        arguments, key = place
        del arguments[key]
    return calls


def _added(calls: list[Call], rng: random.Random) -> list[Call]:
    if calls:
        (arguments,) = rng.choice(calls).values()
        arguments[rng.choice(["other", "unit", "name"])] = rng.choice(["x", 1, None])
    return calls


def _recalled(calls: list[Call], rng: random.Random) -> list[Call]:
    at = rng.randrange(len(calls))
    ((name, arguments),) = calls[at].items()
    other: Call = {rng.choice([name + "_2", name.upper(), "other"]): arguments}
    return rng.choice(
        [[*calls[:at], other, *calls[at + 1 :]], calls[:at] + calls[at + 1 :], [*calls, calls[at]]]
    )


def _reordered(calls: list[Call], rng: random.Random) -> list[Call]:
    return rng.sample(calls, len(calls))
