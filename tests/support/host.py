"""The CUDA kernels compiled for the host: one thread a block, blocks one after the other."""

import ctypes
import subprocess
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import mlx.core as mx
import numpy as np

from calltune.training.cuda import kernels

SHIM = """
#include <cmath>
#define ON_HOST
#define LANES 1
#define __device__
struct float2 { float x, y; };
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
struct Index { long x; };
static Index blockIdx, threadIdx{0}, blockDim{1};
"""
TYPES = {mx.float32: "float", mx.int32: "int"}


def launch(
    call: str,
    inputs: dict[str, mx.array],
    outputs: dict[str, tuple[int, ...]],
    threads: int,
    block: int = kernels.BLOCK,
    types: dict[str, mx.Dtype] | None = None,
) -> list[mx.array]:
    """What `cuda._launch` does, in float32."""
    # Kernels that know their numbers' count stop by themselves; the others have a block a row.
    n_blocks = threads if "_shape" in call else threads // block
    given = {name: np.ascontiguousarray(np.array(array)) for name, array in inputs.items()}
    results = {name: np.full(shape, np.nan, np.float32) for name, shape in outputs.items()}
    kinds = tuple((name, TYPES[array.dtype]) for name, array in inputs.items())
    run = _compiled(call, kinds, tuple(outputs))
    shapes = [np.array(array.shape, np.int32) for array in given.values()]
    arrays = [*given.values(), *shapes, *results.values()]
    run(ctypes.c_long(n_blocks), *(ctypes.c_void_p(array.ctypes.data) for array in arrays))
    return [mx.array(result) for result in results.values()]


@cache
def _compiled(call: str, inputs: tuple[tuple[str, str], ...], outputs: tuple[str, ...]) -> object:
    parameters = [
        *(f"const {kind}* {name}" for name, kind in inputs),
        *(f"const int* {name}_shape" for name, _ in inputs),
        *(f"float* {name}" for name in outputs),
    ]
    body = "for (blockIdx.x = 0; blockIdx.x < n_blocks; blockIdx.x++) { calltune::" + call + " }"
    function = f"void run(long n_blocks, {', '.join(parameters)}) {{ using T = float; {body} }}"
    with TemporaryDirectory() as folder:
        source, library = Path(folder) / "kernel.cpp", Path(folder) / "kernel.so"
        source.write_text(f'{SHIM}{kernels.SOURCE}\nextern "C" {function}\n')
        command = ["g++", "-std=c++17", "-O1", "-shared", "-fPIC", str(source), "-o", str(library)]
        subprocess.run(command, check=True)
        # Once loaded, the library needs its file no more.
        return ctypes.CDLL(str(library)).run
