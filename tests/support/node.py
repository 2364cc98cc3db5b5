"""Packages of npm for tests, and scripts that use them."""

import fcntl
import hashlib
import shutil
import subprocess
from pathlib import Path

from support.commands_needed import needs

NEEDS_NODE = needs(("npm",))
"""npm comes with Node, or brings it along."""
_INSTALL = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]


def install_packages(package_json: Path, cache: Path) -> Path:
    """A folder below `cache` with the packages of this `package.json`.

    They are installed once: until the file changes, or the cache is cleared. Other test processes
    wait meanwhile.
    """
    digest = hashlib.sha256(package_json.read_bytes()).hexdigest()[:16]
    folder = cache / digest
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "installed").exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            shutil.copy(package_json, folder / "package.json")
            ended = subprocess.run(_INSTALL, cwd=folder, capture_output=True, text=True)
            assert ended.returncode == 0, ended.stderr[-3000:]
            (folder / "installed").touch()
    return folder
