"""calltune: turn a small open model into one that calls your tools."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from calltune.agent.caller import Caller, Outcome

__version__ = "0.1.0"
__all__ = ["Caller", "Outcome", "__version__"]


def __getattr__(name: str) -> Any:
    # Imported when asked for: the command line does without.
    if name in ("Caller", "Outcome"):
        from calltune.agent import caller

        return getattr(caller, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
