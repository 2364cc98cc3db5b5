"""backend: show where MLX computes on this machine, and why."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from calltune.models.backend import choose, preload_line
from calltune.models.options import DeviceOption


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions(DeviceOption):
    """Options of `calltune backend`."""

    device: Literal["auto", "cpu", "gpu"] = "auto"
    """The device to ask for: auto follows MLX_DEFAULT_DEVICE, then uses the GPU if there is one."""


def run(options: BackendOptions) -> Path:
    """Print the device, why it was chosen, and how other MLX programs get the same BLAS.

    Returns the path of the BLAS library, or of MLX's package where none is loaded.

    Raises:
        OptionError: the device is not there, or MLX cannot be imported.
    """
    backend = choose(options.device)
    print(backend.describe())
    print(f"why: {backend.reason}")
    if line := preload_line(backend):
        print(f"for other MLX programs: {line} python -m mlx_lm lora …")
    import mlx.core as mx

    return backend.blas or Path(mx.__file__).parent
