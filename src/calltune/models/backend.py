"""Where MLX computes: Metal, CUDA, or the CPU with a fast BLAS loaded before it.

MLX's Linux CPU build is linked to a reference BLAS. OpenBLAS loaded into the global symbol scope
before MLX takes its place, and makes matrix products some forty times faster. The package
`scipy-openblas32` brings an OpenBLAS whose symbols have a prefix; a copy without it is made here.
"""

import ctypes
import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from calltune.downloads import cache_folder
from calltune.errors import FetchError, OptionError, OutputError
from calltune.files import output_error

SYSTEM_NAME = "libopenblas.so.0"


def find_openblas() -> Path:
    """The path of the OpenBLAS to load, or the bare name of the system's own library.

    The package `scipy-openblas32` prefixes every symbol with `scipy_`; a copy without the prefix
    is made once for each of its versions, in the cache folder. Without the package the system's
    library is named.

    Raises:
        FetchError: the copy could not be made.
        OutputError: the cache folder cannot be written.
    """
    if importlib.util.find_spec("scipy_openblas32") is None:
        return Path(SYSTEM_NAME)
    version = importlib.metadata.version("scipy-openblas32")
    copy = cache_folder() / "blas" / f"libopenblas-{version}.so"
    if not copy.is_file():
        _write_copy(copy)
    return copy


def _write_copy(copy: Path) -> None:
    import scipy_openblas32

    source = Path(scipy_openblas32.get_lib_dir()) / "libscipy_openblas.so"
    try:
        copy.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=copy.parent, prefix=".copy-") as beside:
            os.replace(_without_prefix(source, Path(beside)), copy)
    except OSError as error:
        raise output_error(copy, error) from error


def _without_prefix(source: Path, folder: Path) -> Path:
    names = sorted(set(re.findall(rb"\0scipy_(\w+)(?=\0)", source.read_bytes())))
    renames = folder / "renames"
    renames.write_bytes(b"".join(b"scipy_%b %b\n" % (name, name) for name in names))
    renamed = folder / "libopenblas.so"
    # A name of its own, so that the loader never takes the copy for the original.
    command = [
        *(_patchelf(), "--rename-dynamic-symbols", str(renames)),
        *("--set-soname", "libcalltune-openblas.so"),
        *("--output", str(renamed), str(source)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise FetchError(f"patchelf failed on {source.name}: {done.stderr.strip()[:200]}")
    return renamed


def _patchelf() -> str:
    beside_python = Path(sysconfig.get_path("scripts")) / "patchelf"
    found = str(beside_python) if beside_python.is_file() else shutil.which("patchelf")
    if found is None:
        raise FetchError("patchelf is missing; install the cpu extra")
    return found


DEVICES = ("auto", "cpu", "gpu")
"""What `--device` and MLX_DEFAULT_DEVICE may be."""
MAX_OPS_PER_BUFFER = 20
"""Operations that MLX hands to a CUDA device at a time in small steps."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Where MLX computes and how, and why: the one place that answers for the device.

    A value can also be made by hand, to take a device's path through calltune elsewhere.
    """

    device: Literal["metal", "cuda", "cpu"]
    precision: Literal["float32", "as stored"]
    """On the CPU, half precision and quantised products crawl, so models are made float32."""
    blas: Path | None
    """The OpenBLAS that MLX's CPU products run through; None where there is none or no need."""
    blas_name: str
    """The BLAS for people to read, with its version and threads; empty for none."""
    reason: str
    """Why this device was chosen."""

    @property
    def is_gpu(self) -> bool:
        """Whether MLX computes on a GPU, Metal or CUDA.

        There steps are compiled, large batches recompute activations, queued memory is limited
        and batches are padded coarsely; on the CPU activations, attention and loss go through
        NumPy.
        """
        return self.device != "cpu"

    @property
    def runs_cuda_kernels(self) -> bool:
        """Whether calltune's own CUDA kernels can run; elsewhere the same steps are MLX's."""
        return self.device == "cuda"

    def describe(self) -> str:
        """One line for people, such as `CPU, float32, OpenBLAS 0.3.34 (2 threads)`."""
        names = {"metal": "Metal", "cuda": "CUDA", "cpu": "CPU"}
        parts = [names[self.device], self.precision, self.blas_name]
        return ", ".join(part for part in parts if part)


def print_backend(backend: Backend) -> None:
    """Print the backend in one line, and on CUDA that kernels have to be built first."""
    print(f"Backend: {backend.describe()}", flush=True)
    if backend.runs_cuda_kernels:
        print("The first steps on a machine build GPU kernels; that can take minutes", flush=True)


def choose(device: str = "auto", is_step_small: bool = False) -> Backend:
    """Choose where MLX computes, and prepare this process for it; call it before MLX is imported.

    `device` is auto, cpu or gpu. With auto the environment's `MLX_DEFAULT_DEVICE` decides, and
    without that a GPU is taken where there is one. `is_step_small` calls `configure_small_steps`.
    Sets MLX's default device; on a Linux CPU it loads OpenBLAS and installs the patches of
    `cpu_math`, elsewhere it removes them.

    Raises:
        OptionError: the device is none of the three, is not there, or MLX cannot be imported.
    """
    wanted, by = _wanted(device)
    if sys.platform == "linux":
        # By default MLX keeps the CUDA kernels it builds among temporary files.
        kernels = cache_folder() / "kernels" / version("mlx")
        os.environ.setdefault("MLX_PTX_CACHE_DIR", str(kernels))
    if is_step_small:
        configure_small_steps()
    loaded_before = "mlx.core" in sys.modules
    blas, problem = (None, "") if sys.platform != "linux" else load_openblas(loaded_before)
    mx = _import_mlx()
    gpu: Literal["metal", "cuda"] | None = (
        "metal" if mx.metal.is_available() else "cuda" if mx.cuda.is_available() else None
    )
    if wanted == "gpu" and gpu is None:
        raise OptionError(
            f"{by} asks for a GPU, but MLX sees none here; use --device cpu, or install the "
            "cuda12 or cuda13 extra on a machine with an NVIDIA GPU"
        )
    if gpu is not None and wanted != "cpu":
        mx.set_default_device(mx.gpu)
        _set_cpu_math(False)
        why = f"{by} asks for it" if wanted == "gpu" else "MLX found a GPU"
        return Backend(gpu, "as stored", None, "", why)
    mx.set_default_device(mx.cpu)
    _set_cpu_math(sys.platform == "linux")
    why = f"{by} asks for it" if wanted == "cpu" else "MLX found no GPU"
    if problem:
        _say_once(f"Slow matrix products: {problem}")
        why += f"; {problem}"
    name = _blas_name() if blas else "" if sys.platform == "darwin" else "reference BLAS"
    return Backend("cpu", "float32", blas, name, why)


def configure_small_steps() -> None:
    """Tell MLX how to queue small steps on CUDA; call it before MLX first uses the GPU.

    It sets environment variables that are not set yet. Making CUDA graphs of small steps takes
    longer than it saves. Without graphs an H100 is handed 100 operations at a time, which hold
    their memory until all are done; fewer need much less.
    """
    if sys.platform == "linux":
        os.environ.setdefault("MLX_USE_CUDA_GRAPHS", "0")
        os.environ.setdefault("MLX_MAX_OPS_PER_BUFFER", str(MAX_OPS_PER_BUFFER))


def preload_line(backend: Backend) -> str:
    """A shell prefix that gives another MLX command the same BLAS; empty where there is none."""
    return f"LD_PRELOAD={backend.blas}" if backend.blas else ""


def _wanted(device: str) -> tuple[str, str]:
    """The device asked for, and who asks."""
    if device not in DEVICES:
        raise OptionError(f"--device {device} is not known; use one of {', '.join(DEVICES)}")
    if device != "auto":
        return device, f"--device {device}"
    named = os.environ.get("MLX_DEFAULT_DEVICE", "").strip().lower() or "auto"
    if named not in DEVICES:
        raise OptionError(
            f"MLX_DEFAULT_DEVICE={named} is not known; use one of {', '.join(DEVICES)}"
        )
    return named, f"MLX_DEFAULT_DEVICE={named}"


def load_openblas(mlx_is_loaded: bool) -> tuple[Path | None, str]:
    """The OpenBLAS that MLX will use and an empty string, or None and what prevents it.

    Call it before MLX is imported; `mlx_is_loaded` says that it was too late.
    """
    if (loaded := _global_openblas()) is not None:
        return loaded, ""
    if mlx_is_loaded:
        return None, "MLX was imported before OpenBLAS could be loaded"
    try:
        path = find_openblas()
        ctypes.CDLL(str(path), ctypes.RTLD_GLOBAL)
    except (FetchError, OutputError, OSError) as error:
        return None, f"OpenBLAS could not be loaded ({error})"
    return _global_openblas() or path, ""


def _global_openblas() -> Path | None:
    """The OpenBLAS in the process's global symbol scope: preloaded, or loaded by `choose`."""
    if not hasattr(ctypes.CDLL(None), "openblas_get_config"):
        return None
    maps = Path("/proc/self/maps").read_text()
    paths = {line.split(maxsplit=5)[5] for line in maps.splitlines() if "openblas" in line}
    # NumPy brings an OpenBLAS of its own, whose symbols have other names.
    for path in sorted(paths):
        if Path(path).is_file() and hasattr(ctypes.CDLL(path), "openblas_get_config"):
            return Path(path)
    return None


def _blas_name() -> str:
    library = ctypes.CDLL(None)
    library.openblas_get_config.restype = ctypes.c_char_p
    version = library.openblas_get_config().decode().split()[1]
    threads = library.openblas_get_num_threads()
    return f"OpenBLAS {version} ({threads} thread{'' if threads == 1 else 's'})"


@cache
def _say_once(text: str) -> None:
    print(text, file=sys.stderr)


def _set_cpu_math(is_wanted: bool) -> None:
    """Replace MLX's slow functions, or do not; on macOS its CPU has Accelerate's."""
    # This imports MLX, so it comes after OpenBLAS.
    from calltune.models.cpu_math import install_cpu_patches, uninstall_cpu_patches

    if is_wanted:
        install_cpu_patches()
    else:
        uninstall_cpu_patches()


def _import_mlx() -> Any:
    try:
        import mlx.core as mx
    except ImportError as error:
        raise OptionError(
            f"MLX cannot be imported ({error}); on Linux run with one of the extras: "
            "uv run --extra cpu, --extra cuda12 or --extra cuda13"
        ) from error
    return mx
