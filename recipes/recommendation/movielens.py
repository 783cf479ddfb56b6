"""MovieLens 1M and 20M as GroupLens hands them out."""

from __future__ import annotations

import hashlib
import tempfile
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich.progress import wrap_file

from lightning_attnbal.core import check_choice
from recipes._fetch import FetchError, cache_folder
from recipes.recommendation.interactions import Interactions, make_interactions


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A zip file on the web.

    Args:
        url: where it is.
        size: in bytes.
        sha256: of the file.
    """

    url: str
    size: int
    sha256: str


_BLOCK = 1 << 20  # bytes read at once
_SITE = "https://files.grouplens.org/datasets/movielens"
ARCHIVES = {
    "ml-1m": Archive(
        url=f"{_SITE}/ml-1m.zip",
        size=5_917_549,
        sha256="a6898adb50b9ca05aa231689da44c217cb524e7ebd39d264c56e2832f2c54e20",
    ),
    "ml-20m": Archive(
        url=f"{_SITE}/ml-20m.zip",
        size=198_702_078,
        sha256="96f243c338a8665f6bcc89c53edf6ee39162a846940de6b7c8c48aeada765ff3",
    ),
}
"""`data.name` → what is downloaded."""


def fetch_archive(name: str, instead: str) -> Path:
    """The local path of `<name>.zip`; downloads it only if it is not in the cache.

    It is compared with its checksum and renamed into the cache: an interrupted call leaves nothing.

    Args:
        name: "ml-1m" or "ml-20m".
        instead: what works without the file, for the message when it cannot be had.

    Raises:
        FetchError: it cannot be reached, or is not the file it was.
        ValueError: the name is not one of these.
    """
    archive = ARCHIVES[check_choice("data.name", name, tuple(ARCHIVES))]
    target = cache_folder() / f"movielens-{archive.sha256[:12]}" / f"{name}.zip"
    if target.is_file():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_folder(), prefix="download-") as folder:
        part = Path(folder) / target.name
        try:
            found = _download(archive, part)
        except OSError as error:
            msg = f"Could not download {archive.url} ({error}). Run this again later. Until then "
            raise FetchError(
                f"{msg}use `data=embedded`, {instead.removeprefix('use ')}."
            ) from error
        if found != archive.sha256:
            msg = f"Expected `sha256` of {archive.url} to be {archive.sha256}, but got {found}; "
            raise FetchError(f"{msg}the download was deleted.")
        part.replace(target)
    return target


def _download(archive: Archive, target: Path) -> str:
    """Write the file, with a progress bar; its sha256. More than its size is never read."""
    digest = hashlib.sha256()
    with (
        urllib.request.urlopen(archive.url, timeout=60) as source,
        wrap_file(source, archive.size, description=target.name) as stream,
        target.open("wb") as sink,
    ):
        while sink.tell() <= archive.size and (block := stream.read(_BLOCK)):
            digest.update(block)
            sink.write(block)
    return digest.hexdigest()


def read_archive(path: Path) -> Interactions:
    """Ratings, films and, in 1M, people of an archive of GroupLens.

    Raises:
        ValueError: a table is not as expected.
    """
    old = {"sep": "::", "engine": "python", "header": None, "encoding": "latin-1"}
    with zipfile.ZipFile(path) as archive:
        names = {Path(name).name: name for name in archive.namelist()}
        is_old = "ratings.dat" in names
        options, ending = (old, "dat") if is_old else ({"header": 0}, "csv")

        def table(name: str, columns: list[str]) -> pd.DataFrame:
            with archive.open(names[f"{name}.{ending}"]) as stream:
                return pd.read_csv(stream, names=columns, **options)

        frame = table("ratings", ["user", "item", "rating", "timestamp"])
        films = table("movies", ["item", "title", "genres"]).set_index("item")
        people = None
        if is_old:
            columns = ["user", "gender", "age", "occupation", "zip"]
            people = table("users", columns).drop(columns="zip").set_index("user").astype(str)
    years = year_features(films["title"].str.extract(r"\((\d{4})\)\s*$")[0])
    genres = films["genres"].str.get_dummies("|")
    items = pd.concat([films["title"], genres, years], axis=1)
    return make_interactions(frame, items, pd.get_dummies(people) if people is not None else None)


def year_features(years: pd.Series) -> pd.DataFrame:
    """One column per half-decade, by the year as text; all 0 where it is unknown.

    Example:
        >>> year_features(pd.Series(["1993", "1995", None])).astype(int).values.tolist()
        [[1, 0], [0, 1], [0, 0]]
    """
    numbers = pd.to_numeric(years, errors="coerce")
    return pd.get_dummies((numbers // 5 * 5).astype("Int64"), prefix="year")
