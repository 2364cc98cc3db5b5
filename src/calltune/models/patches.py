"""The functions of MLX that calltune replaces while it runs, and the only place that does so.

On a Linux CPU some of MLX's functions are slow, and in a compiled step some keep too much for the
backward pass. mlx_lm's models call them by name, so they are replaced where they are looked up.
Who wants other functions asks here: for the whole process with `install`, or for a block with
`replaced`.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, Literal

import mlx.core as mx

Name = Literal["gelu_approx", "silu", "logsumexp", "scaled_dot_product_attention", "rms_norm"]
Function = Callable[..., Any]

# What MLX's stubs say of these differs between releases.
_core: Any = mx
_nn: Any = importlib.import_module("mlx.nn")
_activations: Any = importlib.import_module("mlx.nn.layers.activations")

_HOLDERS: Mapping[Name, tuple[Any, ...]] = {
    "gelu_approx": (_nn, _activations),
    "silu": (_nn, _activations),
    "logsumexp": (_core,),
    "scaled_dot_product_attention": (_core.fast,),
    "rms_norm": (_core.fast,),
}
"""The modules in which each function is looked up."""

ORIGINALS: Mapping[Name, Function] = MappingProxyType(
    {name: getattr(holders[0], name) for name, holders in _HOLDERS.items()}
)
"""MLX's own functions by name."""


def current(name: Name) -> Function:
    """The function that is looked up by this name now."""
    function: Function = getattr(_HOLDERS[name][0], name)
    return function


def install(functions: Mapping[Name, Function]) -> None:
    """Replace MLX's functions of these names, until others are installed or `uninstall`."""
    for name, function in functions.items():
        for holder in _HOLDERS[name]:
            setattr(holder, name, function)


def uninstall() -> None:
    """Put MLX's own functions back, all of them."""
    install(ORIGINALS)


@contextmanager
def replaced(functions: Mapping[Name, Function]) -> Iterator[None]:
    """Replace MLX's functions of these names while the block runs; the ones before come back."""
    before = {name: current(name) for name in functions}
    install(functions)
    try:
        yield
    finally:
        install(before)
