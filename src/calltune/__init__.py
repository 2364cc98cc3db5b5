"""calltune: turn a small open model into one that calls your tools.

Each command is a function here as well, with the same options as keywords or as one object:

    from calltune import Caller, TrainOptions, train

    adapter = train(model="pip:smollm2-135m", iters=80)
    adapter = train(TrainOptions(model="pip:smollm2-135m", iters=80))

A function returns the path of what it wrote. Everything is imported when it is first used.
"""

from typing import TYPE_CHECKING

__version__ = "0.1.0"
__all__ = [
    "AnalyzeOptions",
    "Caller",
    "ExportOptions",
    "GateOptions",
    "InferOptions",
    "LoadOptions",
    "LookOptions",
    "Outcome",
    "OverlapOptions",
    "PlanOptions",
    "PrepOptions",
    "ServeOptions",
    "TestOptions",
    "TrainOptions",
    "__version__",
    "analyze",
    "export",
    "gate",
    "infer",
    "load",
    "look",
    "overlap",
    "plan",
    "prep",
    "serve",
    "test",
    "train",
]

if TYPE_CHECKING:
    from calltune import commands as _commands
    from calltune.agent.caller import Caller, Outcome
    from calltune.commands import analyze as _analyze
    from calltune.commands import export as _export
    from calltune.commands import gate as _gate
    from calltune.commands import infer as _infer
    from calltune.commands import load as _load
    from calltune.commands import look as _look
    from calltune.commands import overlap as _overlap
    from calltune.commands import plan as _plan
    from calltune.commands import prep as _prep
    from calltune.commands import serve as _serve
    from calltune.commands import test as _test
    from calltune.commands import train as _train
    from calltune.commands.analyze import AnalyzeOptions
    from calltune.commands.export import ExportOptions
    from calltune.commands.gate import GateOptions
    from calltune.commands.infer import InferOptions
    from calltune.commands.load import LoadOptions
    from calltune.commands.look import LookOptions
    from calltune.commands.overlap import OverlapOptions
    from calltune.commands.plan import PlanOptions
    from calltune.commands.prep import PrepOptions
    from calltune.commands.serve import ServeOptions
    from calltune.commands.test import TestOptions
    from calltune.commands.train import TrainOptions

    load = _commands.Command("load", LoadOptions, _load.run)
    prep = _commands.Command("prep", PrepOptions, _prep.run)
    look = _commands.Command("look", LookOptions, _look.run)
    plan = _commands.Command("plan", PlanOptions, _plan.run)
    train = _commands.Command("train", TrainOptions, _train.run)
    infer = _commands.Command("infer", InferOptions, _infer.run)
    test = _commands.Command("test", TestOptions, _test.run)
    analyze = _commands.Command("analyze", AnalyzeOptions, _analyze.run)
    gate = _commands.Command("gate", GateOptions, _gate.run)
    overlap = _commands.Command("overlap", OverlapOptions, _overlap.run)
    export = _commands.Command("export", ExportOptions, _export.run)
    serve = _commands.Command("serve", ServeOptions, _serve.run)
else:

    def __getattr__(name):
        from importlib import import_module

        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        if name in ("Caller", "Outcome"):
            value = getattr(import_module("calltune.agent.caller"), name)
        else:
            command = name.removesuffix("Options").lower()
            module = import_module(f"calltune.commands.{command}")
            value = getattr(module, f"{command.capitalize()}Options")
            if name == command:
                value = import_module("calltune.commands").Command(command, value, module.run)
        globals()[name] = value
        return value

    def __dir__():
        return __all__
