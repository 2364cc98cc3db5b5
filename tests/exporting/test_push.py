"""The hub's real client, in a process of its own, uploads an export to a hub on 127.0.0.1."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from calltune.errors import OptionError
from calltune.exporting.push import check_name

from support import tiny
from support.upload_server import GOOD_TOKEN, Uploads, taking


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, tiny_gemma: Path) -> Path:
    return tiny.write_adapter(tiny_gemma, tmp_path_factory.mktemp("push") / "adapter")


def export(
    adapter: Path, output: Path, endpoint: str, token: str, *more: str
) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    there = {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(output.parent / "hf"),
        "HF_HUB_DISABLE_XET": "1",  # Another protocol, with a server of its own.
    }
    command = [sys.executable, "-m", "calltune", "export", "--adapter-path", str(adapter)]
    return subprocess.run(
        [*command, "--output", str(output), "--push", "acme/caller", *more],
        env=kept | there | ({"HF_TOKEN": token} if token else {}),
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_whole_folder_is_uploaded(adapter: Path, tmp_path: Path) -> None:
    with taking(Uploads()) as hub:
        ended = export(adapter, tmp_path / "out", hub.endpoint, GOOD_TOKEN, "--private")
    assert ended.returncode == 0, ended.stderr
    written = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert hub.files == written and "model.safetensors" in written
    assert hub.is_private
    assert f"Uploaded to {hub.endpoint}/acme/caller" in ended.stdout
    assert b"--model acme/caller" in hub.files["README.md"]


@pytest.mark.slow
def test_a_public_repository_is_not_taken_for_a_private_one(adapter: Path, tmp_path: Path) -> None:
    with taking(Uploads(is_private=False)) as hub:
        ended = export(adapter, tmp_path / "out", hub.endpoint, GOOD_TOKEN, "--private")
        assert ended.returncode == 1 and "is public" in ended.stderr
        assert hub.files == {} and hub.large == {}


def test_without_a_token_nothing_is_done(adapter: Path, tmp_path: Path) -> None:
    with taking(Uploads()) as hub:
        ended = export(adapter, tmp_path / "out", hub.endpoint, "")
    assert ended.returncode == 1 and "hf auth login" in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert hub.log == [] and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("token", "breaks_at", "message"),
    [
        pytest.param("hf_bad", "", "refuses to write", marks=pytest.mark.slow),
        pytest.param(GOOD_TOKEN, "/commit/", "could not be uploaded", marks=pytest.mark.slow),
    ],
)
def test_a_refusal_is_one_line_and_the_folder_stays(
    adapter: Path, tmp_path: Path, token: str, breaks_at: str, message: str
) -> None:
    with taking(Uploads(breaks_at=breaks_at)) as hub:
        ended = export(adapter, tmp_path / "out", hub.endpoint, token)
    assert ended.returncode == 1 and "Traceback" not in ended.stderr
    told = ended.stderr.splitlines()[-1]
    assert told.startswith("calltune: ") and message in told and "hf upload acme/caller" in told
    assert hub.files == {} and (tmp_path / "out" / "export.json").exists()


@pytest.mark.parametrize("name", ["", "a/b/c", "a b", "../x", "/x"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(OptionError, match="OWNER/NAME"):
        check_name(name)
