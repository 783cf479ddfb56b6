from collections import Counter

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from recipes.recommendation import make_interactions
from recipes.recommendation.baselines import fit_ratings, rating_matrix
from recipes.recommendation.data import split_windows
from tests.recipes.recommendation.conftest import small_data


def table(*rows):
    return pd.DataFrame(rows, columns=["user", "item", "rating", "timestamp"])


def test_history_is_in_order_and_only_the_first_meeting_with_an_item_counts():
    found = make_interactions(
        table((1, "c", 3, 30), (1, "a", 5, 10), (1, "b", 4, 20), (1, "a", 1, 40))
    )
    assert [found.item_ids[i] for i in found.items[0]] == ["a", "b", "c"]
    assert found.ratings[0].tolist() == [5, 4, 3]


def test_users_with_too_little_to_split_and_rows_with_gaps_are_left_out():
    rows = [(user, item, 3, item) for user in (1, 2) for item in range(3)]
    found = make_interactions(table(*rows, (3, 0, 3, 0), (3, 1, 3, 1), (2, 9, None, 9)))
    assert found.user_ids == ("1", "2")
    assert found.item_ids == ("", "0", "1", "2")


def test_what_is_simultaneous_is_shuffled_but_always_the_same():
    rows = table(*((1, item, 3, item // 100) for item in range(200)))
    first, second = make_interactions(rows).items[0], make_interactions(rows).items[0]
    np.testing.assert_array_equal(first, second)
    assert set(first[:100]) == set(range(1, 101))
    assert first.tolist() != sorted(first)


def test_features_stand_beside_their_items_and_users():
    items = pd.DataFrame({"title": ["B", "A", "C"], "drama": [1, 0, 1]}, index=[20, 10, 30])
    users = pd.DataFrame({"old": [1, 0]}, index=[7, 8])
    rows = [(user, item, 3, item) for user in (8, 7) for item in (10, 20, 30)]
    found = make_interactions(table(*rows), items, users)
    assert found.titles == ("", "A", "B", "C")
    assert found.item_features.tolist() == [[0, 0], [1, 0], [1, 1], [1, 1]]
    assert found.user_features.tolist() == [[1, 1], [1, 0]]  # user 7, user 8


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (table().drop(columns="rating"), "Expected a column 'rating'"),
        (table((1, 1, 1, 1)), "Expected users with at least 3 interactions"),
    ],
    ids=["column", "empty"],
)
def test_tables_that_cannot_be_used_are_refused(frame, message):
    with pytest.raises(ValueError, match=message):
        make_interactions(frame)


def test_no_training_row_holds_what_is_asked_about_later():
    lengths = [3, 4, 5, 50, 101]
    windows = split_windows(lengths, 10, {"train": None, "val": 99, "test": None})
    assert {(w.user, w.stop) for w in windows["test"]} == {(u, n) for u, n in enumerate(lengths)}
    assert {(w.user, w.stop) for w in windows["val"]} == {(u, n - 1) for u, n in enumerate(lengths)}
    trained = [(w.user, i) for w in windows["train"] for i in range(w.start, w.stop)]
    assert sorted(trained) == [(u, i) for u, n in enumerate(lengths) for i in range(n - 2)]


def test_the_split_depends_on_no_seed_and_fewer_rows_are_the_first_of_more():
    many, few = small_data(seed=1, num_test=20), small_data(seed=2, num_test=5)
    assert many.windows["test"][:5] == few.windows["test"]
    assert many.windows["train"] == few.windows["train"]


def test_test_rows_come_with_all_that_was_seen_before_and_not_with_their_answer(data):
    window, row = data.windows["test"][0], data.rows("next", "test")[0]
    history = data.interactions.items[window.user]
    assert set(row["seen"].nonzero().flatten().tolist()) == set(history[:-1])
    assert row["items"].tolist() == history[window.start :].tolist()
    assert row["target"].tolist() == [False] * (len(row["items"]) - 1) + [True]


def test_batches_are_padded_to_a_few_lengths():
    data = small_data(max_length=30)
    batch = data.collate([data.rows("next", "test")[i] for i in range(4)])
    assert batch["items"].shape == batch["ratings"].shape == batch["target"].shape == (4, 20)
    assert not batch["target"][batch["items"] == 0].any()


def test_baselines_are_fitted_without_the_held_out_rows(data):
    known = rating_matrix(data.interactions, data.windows["train"])
    for window in data.windows["test"]:
        held_out = data.interactions.items[window.user][-2:]
        assert not known[window.user, held_out].toarray().any()


def test_popularity_by_brute_force(data):
    counts = Counter(
        item
        for w in data.windows["train"]
        for item in data.interactions.items[w.user][w.start : w.stop]
    )
    inverse = []
    for window in data.windows["test"]:
        *before, answer = data.interactions.items[window.user]
        others = set(range(1, len(data.interactions.titles))) - {*before, answer}
        higher = sum(counts[item] > counts[answer] for item in others)
        equal = sum(counts[item] == counts[answer] for item in others)
        inverse.append(1 / (1 + higher + equal / 2))
    assert data.baselines()["popularity"]["next/mrr"] == pytest.approx(np.mean(inverse))


def test_rating_factors_find_what_is_behind_the_ratings():
    """Ratings that are a user's bias plus an item's are explained without error left."""
    rng = np.random.default_rng(0)
    users, items = rng.normal(0, 2, 300), rng.normal(0, 2, 200)
    ratings = csr_matrix(3 + users[:, None] + items)
    mean, of_items = fit_ratings(ratings)
    assert mean == pytest.approx(ratings.data.mean())
    assert np.corrcoef(of_items[:, 0], items)[0, 1] > 0.999


def test_baselines_answer_the_tasks_that_are_trained():
    found = small_data(tasks=["like"]).baselines()
    assert {key for scores in found.values() for key in scores} == {"like/auc"}
