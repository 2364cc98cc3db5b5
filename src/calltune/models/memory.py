"""How much memory there is, on the machine and on the device that computes."""

import os
from typing import Any

from calltune.models.backend import Backend


def available_bytes() -> int:
    """What other programs leave free on this machine, an estimate."""
    try:
        with open("/proc/meminfo") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2


def device_bytes(backend: Backend) -> int:
    """What a training run may use where it computes: a GPU's memory, or what is available."""
    if backend.device == "cpu":
        return available_bytes()
    import mlx.core as mx

    info: Any = mx.device_info()
    size = info.get("max_recommended_working_set_size") or info.get("total_memory")
    return int(size or info.get("memory_size") or available_bytes())


def limit_queued_memory(n_bytes: int) -> None:
    """Let MLX wait for its GPU where `n_bytes` more than now would be in use.

    Work is queued faster than it is done, and what is queued holds its memory. This is no limit
    to what can be used: with nothing to wait for, MLX goes on.
    """
    import mlx.core as mx

    mx.clear_cache()
    mx.set_memory_limit(mx.get_active_memory() + n_bytes)
