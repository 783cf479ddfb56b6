import hashlib
import zipfile

import pandas as pd
import pytest

from recipes._fetch import FetchError
from recipes.recommendation import RecommendationDataConfig, load_csv, movielens, sources
from recipes.recommendation.sources import load_interactions


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNBAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


OLD = {
    "ml-1m/ratings.dat": "1::10::5::3\n1::20::4::1\n1::30::1::2\n",
    "ml-1m/movies.dat": "10::Fargo (1996)::Crime|Drama\n20::Caf\xe9 (1990)::Drama\n"
    "30::X (1991)::Crime\n",
    "ml-1m/users.dat": "1::F::25::7::10001\n",
}
NEW = {
    "ml-20m/ratings.csv": "userId,movieId,rating,timestamp\n1,10,5.0,3\n1,20,4.5,1\n1,30,0.5,2\n",
    "ml-20m/movies.csv": "movieId,title,genres\n10,Fargo (1996),Crime|Drama\n"
    '20,"Postino, Il (1994)",Drama\n30,X (1991),Crime\n',
}


def publish(folder, monkeypatch, name, files, **changes):
    """Put an archive where the recipe will look for it."""
    path = folder / f"{name}.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in files.items():
            archive.writestr(member, text.encode("latin-1"))
    content = path.read_bytes()
    facts = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest()} | changes
    archive = movielens.Archive(url=path.as_uri(), **facts)
    monkeypatch.setitem(movielens.ARCHIVES, name, archive)
    return path


def hub(name):
    return load_interactions(RecommendationDataConfig(source="hub", name=name))


def test_ratings_films_and_people_of_1m(tmp_path, monkeypatch):
    publish(tmp_path, monkeypatch, "ml-1m", OLD)
    found = hub("ml-1m")
    assert [found.titles[i] for i in found.items[0]] == [
        "Caf\xe9 (1990)",
        "X (1991)",
        "Fargo (1996)",
    ]
    assert found.ratings[0].tolist() == [4, 1, 5]
    assert found.item_features[1].tolist() == [1, 1, 1, 0, 1]  # crime, drama, 1990-, 1995-
    assert found.user_features.tolist() == [[1, 1, 1, 1]]  # sex, age, occupation


def test_ratings_and_films_of_20m(tmp_path, monkeypatch):
    publish(tmp_path, monkeypatch, "ml-20m", NEW)
    found = hub("ml-20m")
    assert found.titles == ("", "Fargo (1996)", "Postino, Il (1994)", "X (1991)")
    assert found.ratings[0].tolist() == [4.5, 0.5, 5.0]
    assert found.user_features.tolist() == [[1]]


def test_an_archive_is_fetched_once_and_the_terms_are_shown_once(tmp_path, monkeypatch, capsys):
    path = publish(tmp_path, monkeypatch, "ml-1m", OLD)
    hub("ml-1m")
    assert "Cite: F. M. Harper" in capsys.readouterr().out
    path.unlink()
    hub("ml-1m")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "changes", [{"sha256": "0" * 64}, {"size": 10}], ids=["tampered", "longer"]
)
def test_another_file_is_refused_and_nothing_is_kept(tmp_path, monkeypatch, cache, changes):
    if "size" in changes:
        monkeypatch.setattr(movielens, "_BLOCK", 16)
    publish(tmp_path, monkeypatch, "ml-1m", OLD, **changes)
    with pytest.raises(FetchError, match=r"Expected `sha256` of .* the download was deleted"):
        hub("ml-1m")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_a_site_that_is_not_reached_is_one_error_with_the_alternatives(
    tmp_path, monkeypatch, cache
):
    publish(tmp_path, monkeypatch, "ml-1m", OLD).unlink()
    with pytest.raises(FetchError, match=r"data=embedded.*data=synthetic.*data=files"):
        hub("ml-1m")
    assert not [path for path in cache.rglob("*") if path.is_file()]


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"Expected `data\.name` to be one of 'ml-1m', 'ml-20m'"):
        hub("ml-2m")


def test_packaged_films_that_are_listed_twice_are_one(tmp_path, monkeypatch):
    tables = {
        "data": pd.DataFrame(
            {
                "user_id": 1,
                "movie_id": [1, 2, 3, 4],
                "rating": [5, 4, 3, 2],
                "timestamp": [1, 2, 3, 4],
            }
        ),
        "items": pd.DataFrame(
            {
                "movie_id": [1, 2, 3, 4],
                "movie_title": ["A", "B", "A", "C"],
                "release_date": ["01-Jan-1995", "01-Jan-1996", "01-Jan-1995", None],
                "unknown": 0,
                "Drama": [1, 0, 1, 0],
                "Western": 0,
            }
        ),
        "users": pd.DataFrame({"user_id": [1], "age": [24], "gender": ["M"], "occupation": ["x"]}),
    }
    for name, table in tables.items():
        table.to_parquet(tmp_path / f"MovieLens100k_{name}.parquet.brotli")
    monkeypatch.setattr(sources, "fetch_member", lambda file: tmp_path / file.member.split("/")[-1])
    found = load_interactions(RecommendationDataConfig())
    assert [found.titles[i] for i in found.items[0]] == ["A", "B", "C"]
    assert found.ratings[0].tolist() == [5, 4, 2]


def test_a_table_of_ones_own(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("user,item,rating,timestamp,note\na,x,1,1,\na,y,2,2,\na,z,3,3,\n")
    found = load_csv(path)
    assert found.user_ids == ("a",)
    assert found.titles == ("", "x", "y", "z")


@pytest.mark.parametrize("path", ["missing.csv", "https://example.org/table.csv", ""])
def test_only_files_are_read(path):
    with pytest.raises(FileNotFoundError, match=r"Expected `data\.path` to be a CSV file"):
        load_csv(path)
