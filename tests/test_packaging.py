"""The wheel: what it carries, and that it installs and answers away from the checkout."""

import os
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# `uv run` says where it is; it need not be on the PATH.
UV = os.environ.get("UV") or shutil.which("uv") or ""
REGISTRY = re.compile(rb"pypi\.org|pythonhosted|npmjs|index-url|/simple/", re.IGNORECASE)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not UV and os.environ.get("CI") != "true", reason="needs uv"),
]


def run(*command: str | Path, cwd: Path) -> str:
    # Not the environment that the tests run in.
    kept = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment = kept | {"UV_TOOL_DIR": str(cwd / "tools"), "UV_TOOL_BIN_DIR": str(cwd / "bin")}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(UV, "build", "--wheel", "--out-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("calltune-*.whl")
    return built


def test_the_wheel_carries_what_the_package_reads_and_names_no_registry(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    recipes = {f"calltune/recipes/{path.name}" for path in (ROOT / "recipes").iterdir()}
    package = ROOT / "src" / "calltune"
    sources = {
        f"calltune/{path.relative_to(package)}"
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert recipes and recipes | sources <= set(content)
    assert {name.split("/")[0] for name in content if ".dist-info" not in name} == {"calltune"}
    assert [name for name, body in content.items() if REGISTRY.search(body)] == []


def test_the_wheel_has_the_extras_that_the_readme_names(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        metadata = archive.read(name).decode()
    extras = re.findall(r"^Provides-Extra: (.*)$", metadata, re.MULTILINE)
    assert set(extras) == {"cpu", "cuda12", "cuda13", "mcp", "tensorboard", "trackio", "wandb"}


def test_the_wheel_installs_as_a_tool_and_answers(wheel: Path, tmp_path: Path) -> None:
    run(UV, "tool", "install", f"calltune[cpu] @ {wheel}", cwd=tmp_path)
    calltune = tmp_path / "bin" / "calltune"
    assert "quickstart" in run(calltune, "--help", cwd=tmp_path)
    assert "--recipe" in run(calltune, "quickstart", "--help", cwd=tmp_path)
    code = (
        "from calltune.commands.quickstart import recipes_folder\n"
        "print(*(path.name for path in recipes_folder().glob('*.toml')))"
    )
    found = run(tmp_path / "tools" / "calltune" / "bin" / "python", "-c", code, cwd=tmp_path)
    assert set(found.split()) == {path.name for path in (ROOT / "recipes").glob("*.toml")}
