"""Show where MLX computes here, and why."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from calltune.models.options import DeviceOption


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions(DeviceOption):
    """Options of `calltune backend`."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """The device to ask for: auto follows MLX_DEFAULT_DEVICE, then uses the GPU if there is one."""


def run(options: BackendOptions) -> Path:
    """Print what was chosen, why, and what gives other MLX programs the same BLAS.

    Returns the BLAS library, or MLX's own folder where none is loaded.
    """
    from calltune.models.backend import choose, preload_line

    backend = choose(options.device)
    print(backend.describe())
    print(f"why: {backend.reason}")
    if line := preload_line(backend):
        print(f"for other MLX programs: {line} python -m mlx_lm lora …")
    import mlx.core as mx

    return backend.blas or Path(mx.__file__).parent
