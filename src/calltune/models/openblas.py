"""An OpenBLAS that answers to the standard names, for the Linux CPU."""

import importlib.metadata
import importlib.util
import os
import re
import shutil
import subprocess
import sysconfig
import tempfile
from pathlib import Path

from calltune.errors import FetchError
from calltune.jsonl import output_error
from calltune.wheels import cache_folder

SYSTEM_NAME = "libopenblas.so.0"


def find_openblas() -> Path:
    """The file, or bare library name, to load.

    The package `scipy-openblas32` names every symbol `scipy_…`; a copy without the prefix is made
    once for each of its versions. Without the package the system's own OpenBLAS is named.

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
