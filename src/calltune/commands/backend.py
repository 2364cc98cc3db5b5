"""Show where MLX computes here, and why."""

from dataclasses import dataclass
from pathlib import Path

from calltune.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendOptions:
    """Which device to ask for."""

    device: str = "auto"
    """auto, cpu or gpu; auto follows MLX_DEFAULT_DEVICE, then takes a GPU where there is one."""

    def __post_init__(self) -> None:
        if self.device not in ("auto", "cpu", "gpu"):
            raise OptionError(f"--device {self.device} is not known; use one of auto, cpu, gpu")


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
