"""How much memory there is on the machine and on the device, and a limit for queued work."""

import os
from typing import Any

from calltune.models.backend import Backend


def available_bytes() -> int:
    """An estimate of the bytes of memory that other programs leave free on this machine."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def device_bytes(backend: Backend) -> int:
    """The bytes of memory that calltune may use where it computes.

    That is what is available for the CPU, and for a GPU its size: on Metal the largest working
    set that the system recommends.
    """
    if not backend.is_gpu:
        return available_bytes()
    import mlx.core as mx

    info: Any = mx.device_info()
    size = info.get("max_recommended_working_set_size") or info.get("total_memory")
    return int(size or info.get("memory_size") or available_bytes())


def limit_queued_memory(n_bytes: int) -> None:
    """Let MLX wait for queued work before it uses `n_bytes` more than now.

    Work is queued faster than it is done, and what is queued holds its memory. This does not limit
    what a single operation can use: with no work to wait for, MLX goes on.
    """
    import mlx.core as mx

    mx.clear_cache()
    mx.set_memory_limit(mx.get_active_memory() + n_bytes)
