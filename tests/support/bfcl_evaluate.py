"""`bfcl evaluate` of the unpacked wheel, without the packages that it only needs to ask models.

Run it as `python bfcl_evaluate.py WHEEL_FOLDER RESULT_FOLDER SCORE_FOLDER`.
"""

import os
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

HANDLERS = ("bfcl_eval.model_handler.api_inference.", "bfcl_eval.model_handler.local_inference.")
REAL = ("base_oss_handler", "granite_3")
"""The handler that reads our files, and its base."""
UNUSED = (
    *("dotenv", "filelock", "openai", "overrides", "pandas", "requests", "tenacity"),
    *("tqdm", "tree_sitter", "tree_sitter_java", "tree_sitter_javascript"),
)


class Anything:
    """What stands for a class or function that is named and not needed."""

    def __init__(self, *given: object, **named: object) -> None:
        pass

    def __call__(self, *given: object, **named: object) -> "Anything":
        return self

    def __getattr__(self, name: str) -> "Anything":
        return self


class Handlers(MetaPathFinder, Loader):
    """Empty modules for the handlers of other models."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        is_other = name.startswith(HANDLERS) and not name.endswith(REAL)
        return ModuleSpec(name, self, is_package=True) if is_other else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = ModuleType(spec.name)
        if spec.name == "overrides":
            mark: Any = lambda function: function  # noqa: E731
            vars(module).update(override=mark, final=mark, EnforceOverrides=type("Plain", (), {}))
        vars(module)["__getattr__"] = _anything
        return module

    def exec_module(self, module: ModuleType) -> None:
        pass


class Unused(Handlers):
    """Empty modules for packages that are not installed."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        is_unused = name.split(".")[0] in UNUSED
        return ModuleSpec(name, self, is_package=True) if is_unused else None


def _anything(name: str) -> type[Anything]:
    if name.startswith("__"):
        raise AttributeError(name)
    return Anything


def main(wheel: Path, results: Path, scores: Path) -> None:
    # It makes its folders where this says.
    os.environ["BFCL_PROJECT_ROOT"] = str(scores)
    sys.meta_path.insert(0, Handlers())
    sys.meta_path.append(Unused())
    sys.path.insert(0, str(wheel))
    from bfcl_eval.eval_checker import eval_runner

    from calltune.evaluation.bfcl import MODEL

    eval_runner.main([MODEL], ["python"], results, scores, partial_eval=True)


if __name__ == "__main__":
    main(*(Path(argument).resolve() for argument in sys.argv[1:]))
