import hashlib
import zipfile
from pathlib import Path

import pytest

from calltune import downloads
from calltune.downloads import PINS, Pin, cache_folder, fetch
from calltune.errors import FetchError, OutputError

NAME = "calltune-tiny-data"


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes packages from, and a cache of the test's own."""
    folder = tmp_path / "shop"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("CALLTUNE_CACHE", str(tmp_path / "cache"))
    pin = Pin(NAME, "1.0.0", hashlib.sha256(_wheel(folder)).hexdigest(), 0.1)
    monkeypatch.setitem(downloads.PINS, NAME, pin)
    return folder


def _wheel(folder: Path, content: str = "data") -> bytes:
    path = folder / "calltune_tiny_data-1.0.0-py3-none-any.whl"
    about = "calltune_tiny_data-1.0.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("calltune_tiny_data/data.txt", content)
        wheel.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0.0\n"
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return path.read_bytes()


def test_a_wheel_is_fetched_once_and_the_user_is_told(
    shop: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wheel = fetch(NAME)
    told = capsys.readouterr()
    assert told.err == f"fetching {NAME}==1.0.0… 0.1 MB\n"
    assert told.out == ""
    (shop / wheel.name).unlink()
    assert fetch(NAME) == wheel
    assert capsys.readouterr().err == ""
    assert [path.name for path in wheel.parent.iterdir()] == [wheel.name]


def test_a_damaged_wheel_in_the_cache_is_fetched_again(shop: Path) -> None:
    wheel = fetch(NAME)
    good = wheel.read_bytes()
    wheel.write_bytes(good[:-10] + b"0123456789")
    assert fetch(NAME).read_bytes() == good


def test_other_bytes_than_the_pinned_ones_are_refused_and_removed(shop: Path) -> None:
    _wheel(shop, "something else")
    with pytest.raises(FetchError, match="SHA-256"):
        fetch(NAME)
    assert list((cache_folder() / "wheels").iterdir()) == []


def test_without_the_package_one_line_says_what_to_do(shop: Path) -> None:
    (shop / PINS[NAME].file_name).unlink()
    with pytest.raises(FetchError, match="check the network connection and run again") as raised:
        fetch(NAME)
    assert "\n" not in str(raised.value)
    assert list((cache_folder() / "wheels").iterdir()) == []


def test_a_cache_that_cannot_be_written_is_named(
    shop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("CALLTUNE_CACHE", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="file/wheels"):
        fetch(NAME)


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("HOME", "/home/someone")
    monkeypatch.delenv("CALLTUNE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == Path("/home/someone/.cache/calltune")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    assert cache_folder() == Path("/caches/calltune")
    monkeypatch.setenv("CALLTUNE_CACHE", "~/here")
    assert cache_folder() == Path("/home/someone/here")


def test_the_cache_on_a_mac_is_where_caches_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    monkeypatch.setenv("HOME", "/Users/someone")
    monkeypatch.delenv("CALLTUNE_CACHE", raising=False)
    assert cache_folder() == Path("/Users/someone/Library/Caches/calltune")
