"""The same mathematics, faster, for MLX functions that are slow on a Linux CPU.

There MLX multiplies and adds in vectors, but takes tanh, exp and the like one number at a time;
so tanh is made of products and sums here. It agrees with MLX's to float32 rounding.
"""

import ctypes
import importlib
import math
from collections.abc import Callable, Mapping
from typing import Any

import mlx.core as mx

# What MLX's stubs say of these differs between releases.
Array = Any
core: Any = mx
nn: Any = importlib.import_module("mlx.nn")
activations: Any = importlib.import_module("mlx.nn.layers.activations")

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""From glibc's malloc.h."""
GELU_SCALE, GELU_CUBIC = math.sqrt(2 / math.pi), 0.044715 * math.sqrt(2 / math.pi)
TANH_END = 9.0
"""From here on tanh is 1 in float32, and so is the quotient below."""
TANH_ABOVE = (
    0.9999999778095853,
    0.13374616085044125,
    0.003487974259030614,
    2.0483701907161622e-05,
    1.318066540812273e-08,
)
TANH_BELOW = (
    1.0,
    0.46707930095998745,
    0.025848020152432285,
    0.0003273179857256003,
    7.705406124806453e-07,
)
"""Least-squares fit of tanh(x)/x, |x| < 9.1, by a quotient of polynomials in x².

In float32 its tanh is off by 4e-7 at most.
"""

originals: dict[str, Callable[..., Array]] = {
    "gelu_approx": nn.gelu_approx,
    "silu": nn.silu,
    "logsumexp": core.logsumexp,
    "scaled_dot_product_attention": core.fast.scaled_dot_product_attention,
}
"""MLX's own functions by name."""


def speed_up_cpu() -> None:
    """Put `gelu_approx` and `silu` in the place of MLX's, for the whole process; twice is once.

    Compilation is switched off: it gains nothing on a CPU, and `at_once` cannot reach into it.
    """
    _reuse_freed_memory()
    if not is_sped_up():
        install({"gelu_approx": gelu_approx, "silu": silu})
        mx.disable_compile()


def restore() -> None:
    """Undo `speed_up_cpu`, all but the reuse of memory; does nothing without it."""
    if is_sped_up():
        install(originals)
        mx.enable_compile()


def is_sped_up() -> bool:
    """Whether `speed_up_cpu` is in force."""
    return nn.silu is not originals["silu"]


def install(functions: Mapping[str, Callable[..., Array]]) -> None:
    """Put functions in the place of MLX's of the same names."""
    holders = {
        "gelu_approx": (nn, activations),
        "silu": (nn, activations),
        "logsumexp": (core,),
        "scaled_dot_product_attention": (core.fast,),
    }
    for name, function in functions.items():
        for holder in holders[name]:
            setattr(holder, name, function)


def gelu_approx(x: Array) -> Array:
    """x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))), as `nn.gelu_approx`."""
    return _gelu(x) if x.dtype == mx.float32 else originals["gelu_approx"](x)


def silu(x: Array) -> Array:
    """The product of x and its logistic sigmoid, as `nn.silu`."""
    return _silu(x) if x.dtype == mx.float32 else originals["silu"](x)


def gelu_slope(x: Array, cotangent: Array, _: Any) -> Array:
    """The cotangent of x, from that of `gelu_approx(x)`."""
    cubic = GELU_CUBIC * (x * x)
    t = _tanh((cubic + GELU_SCALE) * x)
    bend = (1 - t * t) * (3 * cubic + GELU_SCALE) * x
    return cotangent * 0.5 * (1 + t + bend)


def silu_slope(x: Array, cotangent: Array, _: Any) -> Array:
    """The cotangent of x, from that of `silu(x)`."""
    s = 0.5 * (1 + _tanh(0.5 * x))
    return cotangent * s * (1 + x * (1 - s))


# Custom functions, so that x alone is kept for the gradient.
@core.custom_function  # type: ignore[untyped-decorator]
def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + _tanh((GELU_CUBIC * (x * x) + GELU_SCALE) * x))


@core.custom_function  # type: ignore[untyped-decorator]
def _silu(x: Array) -> Array:
    return 0.5 * x * (1 + _tanh(0.5 * x))


_gelu.vjp(gelu_slope)
_silu.vjp(silu_slope)


def _tanh(x: Array) -> Array:
    x = mx.clip(x, -TANH_END, TANH_END)
    square = x * x
    return x * _polynomial(square, TANH_ABOVE) / _polynomial(square, TANH_BELOW)


def _polynomial(x: Array, coefficients: tuple[float, ...]) -> Array:
    *rest, total = coefficients
    result: Array = total
    for coefficient in reversed(rest):
        result = result * x + coefficient
    return result


def _reuse_freed_memory() -> None:
    """Have glibc keep large blocks: fetching them anew is most of a simple operation's time."""
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):
        # Some versions refuse more than 32 MiB.
        library.mallopt(M_MMAP_THRESHOLD, 2**30) or library.mallopt(M_MMAP_THRESHOLD, 2**25)
        library.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
