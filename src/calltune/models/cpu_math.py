"""GELU and SiLU from products and sums alone, which MLX vectorises on a Linux CPU.

There MLX multiplies and adds in vectors, but takes tanh, exp and the like one number at a time;
so tanh is made of products and sums here. It agrees with MLX's to float32 rounding.
"""

import ctypes
import math
from typing import Any

import mlx.core as mx

from calltune.models import patches

# What MLX's stubs say of these differs between releases.
Array = Any
core: Any = mx

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


def install_cpu_patches() -> None:
    """Replace MLX's `gelu_approx` and `silu` with these, for the whole process; twice is once.

    `mx.compile` is switched off: it gains nothing on a CPU, and `use_numpy_ops` cannot evaluate
    inside it. glibc is told to keep freed memory.
    """
    _reuse_freed_memory()
    if not has_cpu_patches():
        patches.install({"gelu_approx": gelu_approx, "silu": silu})
        mx.disable_compile()


def uninstall_cpu_patches() -> None:
    """Undo `install_cpu_patches`, except for the reuse of memory; does nothing without it."""
    if has_cpu_patches():
        patches.uninstall()
        mx.enable_compile()


def has_cpu_patches() -> bool:
    """Whether `install_cpu_patches` is in force."""
    return patches.current("silu") is not patches.ORIGINALS["silu"]


def gelu_approx(x: Array) -> Array:
    """GELU of x (any shape) by its tanh approximation: x/2 (1 + tanh(√(2/π) (x + 0.044715 x³))).

    As `nn.gelu_approx`, which computes other types than float32. Hendrycks and Gimpel,
    https://arxiv.org/abs/1606.08415.
    """
    return _gelu(x) if x.dtype == mx.float32 else patches.ORIGINALS["gelu_approx"](x)


def silu(x: Array) -> Array:
    """SiLU of x (any shape): x times its logistic sigmoid.

    As `nn.silu`, which computes other types than float32.
    """
    return _silu(x) if x.dtype == mx.float32 else patches.ORIGINALS["silu"](x)


def gelu_slope(x: Array, cotangent: Array, _: Any) -> Array:
    """The cotangent of x, from that of `gelu_approx(x)`; both of the shape of x."""
    cubic = GELU_CUBIC * (x * x)
    t = _tanh((cubic + GELU_SCALE) * x)
    bend = (1 - t * t) * (3 * cubic + GELU_SCALE) * x
    return cotangent * 0.5 * (1 + t + bend)


def silu_slope(x: Array, cotangent: Array, _: Any) -> Array:
    """The cotangent of x, from that of `silu(x)`; both of the shape of x."""
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
