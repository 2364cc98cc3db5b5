import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest

from calltune.errors import OptionError
from calltune.models import cpu_math
from calltune.models.backend import Backend, choose, preload_line

ON_LINUX = sys.platform == "linux"


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process that has not imported MLX yet."""
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without a GPU; what `choose` installs in this process is removed afterwards."""
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    monkeypatch.setattr(mx.cuda, "is_available", lambda: False)
    monkeypatch.delenv("MLX_DEFAULT_DEVICE", raising=False)
    yield
    cpu_math.uninstall_cpu_patches()


def test_products_run_through_the_blas_that_is_named(tmp_path: Path) -> None:
    """The loader's own record says which library MLX's matrix product was bound to."""
    code = """
from calltune.models.backend import choose
backend = choose("cpu")
import mlx.core as mx
mx.eval(mx.ones((64, 64)) @ mx.ones((64, 64)))
print(backend.blas)
print(backend.describe())
"""
    log = tmp_path / "bindings"
    done = python(code, LD_DEBUG="bindings", LD_DEBUG_OUTPUT=str(log))
    blas, described = done.stdout.splitlines()
    assert described.startswith("CPU, float32")
    if not ON_LINUX:
        assert blas == "None"
        return
    assert "OpenBLAS" in described
    bound = [
        line
        for file in tmp_path.iterdir()
        for line in file.read_text(errors="replace").splitlines()
        if "libmlx.so" in line and "`cblas_sgemm'" in line
    ]
    assert bound
    assert all(f" to {blas} " in line for line in bound)


def test_mlx_imported_too_early_is_said_and_not_hidden() -> None:
    code = """
import mlx.core
from calltune.models.backend import choose
choose("cpu")
backend = choose("cpu")
print(backend.blas, "|", backend.reason)
"""
    done = python(code, LD_PRELOAD="")
    assert done.stdout.startswith("None")
    if ON_LINUX:
        assert "MLX was imported before OpenBLAS could be loaded" in done.stdout
        assert done.stderr.count("Slow matrix products") == 1


def test_choosing_twice_gives_the_same() -> None:
    done = python(
        "from calltune.models.backend import choose; print(choose('cpu') == choose('cpu'))"
    )
    assert done.stdout == "True\n"


def test_slow_functions_are_replaced_on_the_linux_cpu_alone() -> None:
    code = """
from calltune.models.backend import choose
choose("cpu")
from calltune.models.cpu_math import has_cpu_patches
print(has_cpu_patches())
import mlx.core as mx
mx.cuda.is_available = lambda: True
mx.set_default_device = print
choose("gpu")
print(has_cpu_patches())
"""
    first, *_, last = python(code).stdout.splitlines()
    assert (first, last) == (str(ON_LINUX), "False")


def test_a_cache_that_cannot_be_written_costs_speed_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    code = "from calltune.models.backend import choose; print(choose('cpu').device)"
    done = python(code, CALLTUNE_CACHE=str(tmp_path / "file"))
    assert done.stdout == "cpu\n"
    assert not ON_LINUX or "Cannot write" in done.stderr


def test_the_environment_forces_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_DEFAULT_DEVICE", "cpu")
    backend = choose()
    assert (backend.device, backend.precision) == ("cpu", "float32")
    assert "MLX_DEFAULT_DEVICE=cpu asks for it" in backend.reason
    assert mx.default_device() == mx.cpu


@pytest.mark.usefixtures("no_gpu")
def test_the_option_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLX_DEFAULT_DEVICE", "cpu")
    with pytest.raises(OptionError, match="--device gpu asks for a GPU, but MLX sees none"):
        choose("gpu")


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_the_cpu_is_chosen() -> None:
    assert choose().device == "cpu"
    assert "MLX found no GPU" in choose().reason


def test_unknown_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="--device tpu"):
        choose("tpu")
    monkeypatch.setenv("MLX_DEFAULT_DEVICE", "tpu")
    with pytest.raises(OptionError, match="MLX_DEFAULT_DEVICE=tpu"):
        choose()


def test_the_preload_line_names_the_library() -> None:
    backend = Backend("cpu", "float32", Path("/cache/libopenblas.so"), "OpenBLAS 1", "")
    assert preload_line(backend) == "LD_PRELOAD=/cache/libopenblas.so"
    assert preload_line(Backend("metal", "as stored", None, "", "")) == ""
