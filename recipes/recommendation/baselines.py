"""Popularity and matrix factorisation, scored as the model is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import svds
from torchmetrics.functional import mean_squared_error, r2_score
from torchmetrics.functional.classification import binary_auroc

from recipes.recommendation.interactions import Interactions, Window
from recipes.recommendation.ranking import ranking_scores, ranks_of

Floats = NDArray[np.float64]

_RANK = 32  # of the factorisation for the next item
_RATING_RANK = 8  # of the one for ratings
_RIDGE = 10.0
_ROUNDS = 10


def baseline_scores(
    interactions: Interactions, train: Sequence[Window], test: Sequence[Window], like_from: float
) -> dict[str, dict[str, float]]:
    """Metrics of each baseline on the last interactions of the test windows.

    Items are fitted to training rows, a user's factors to the whole history before the test row:
    what the model is given too.

    - "popularity": items that were met most often.
    - "mean rating": the item's, damped.
    - "factorisation": for the next item, a truncated singular value decomposition of who
      met what (0/1); for ratings and likes, biased factors by alternating least squares.

    Args:
        interactions: all of them.
        train: what may be fitted to.
        test: what is asked about.
        like_from: ratings from here on are likes.

    Source: Cremonesi et al., "Performance of Recommender Algorithms on Top-N Recommendation Tasks",
    2010 (PureSVD); Koren et al., "Matrix Factorization Techniques for Recommender Systems", 2009.
    """
    known = rating_matrix(interactions, train)
    history = rating_matrix(interactions, [Window(w.user, 0, w.stop - 1) for w in test])
    history = history[[w.user for w in test]]
    target = np.array([interactions.items[w.user][w.stop - 1] for w in test])
    rated = torch.tensor([interactions.ratings[w.user][w.stop - 1] for w in test])

    def ranked(scores: Floats) -> dict[str, float]:
        seen = torch.from_numpy(_met(history).toarray() > 0)
        ranks = ranks_of(torch.from_numpy(scores), torch.from_numpy(target), seen)
        return {f"next/{name}": float(v.mean()) for name, v in ranking_scores(ranks).items()}

    def rating_scores(values: Floats) -> dict[str, float]:
        guess = torch.from_numpy(values).to(rated.dtype)
        return {
            "rating/rmse": mean_squared_error(guess, rated, squared=False).item(),
            "rating/r2": r2_score(guess, rated).item(),
            "like/auc": binary_auroc(guess, (rated >= like_from).int()).item(),
        }

    popularity = np.asarray(_met(known).sum(0))
    _, _, directions = svds(_met(known), k=min(_RANK, min(known.shape) - 1), random_state=0)
    mean, of_items = fit_ratings(known)
    of_users = _ridge(history, of_items, mean)
    fitted = mean + of_users[:, 0] + of_items[target, 0]
    fitted += (of_users[:, 1:] * of_items[target, 1:]).sum(1)
    return {
        "popularity": ranked(np.repeat(popularity, len(target), 0)),
        "mean rating": rating_scores(
            mean + _ridge(known.T.tocsr(), np.zeros((known.shape[0], 1)), mean)[target, 0]
        ),
        "factorisation": ranked(_met(history) @ directions.T @ directions) | rating_scores(fitted),
    }


def rating_matrix(interactions: Interactions, windows: Sequence[Window]) -> csr_matrix:
    """Ratings (U, I + 1) in the windows; a rating of 0 is stored too."""
    users = np.repeat([w.user for w in windows], [w.stop - w.start for w in windows])
    items = np.concatenate([interactions.items[w.user][w.start : w.stop] for w in windows])
    values = np.concatenate([interactions.ratings[w.user][w.start : w.stop] for w in windows])
    shape = (len(interactions.items), len(interactions.titles))
    return csr_matrix((values.astype(np.float64), (users, items)), shape)


def _met(ratings: csr_matrix) -> csr_matrix:
    return csr_matrix((np.ones_like(ratings.data), ratings.indices, ratings.indptr), ratings.shape)


def fit_ratings(ratings: csr_matrix) -> tuple[float, Floats]:
    """Mean rating and items' factors (I, 1 + K), column 0 their biases.

    rating(u, i) ≈ mean + b_u + b_i + p_u · q_i, by alternating ridge regressions.

    Args:
        ratings: (U, I).
    """
    mean = float(ratings.data.mean())
    columns = ratings.T.tocsr()
    of_items: Floats = np.random.default_rng(0).normal(0, 0.1, (ratings.shape[1], 1 + _RATING_RANK))
    of_items[:, 0] = 0
    for _ in range(_ROUNDS):
        of_users = _ridge(ratings, of_items, mean)
        of_items = _ridge(columns, of_users, mean)
    return mean, of_items


def _ridge(ratings: csr_matrix, others: Floats, mean: float) -> Floats:
    """Bias and factors (R, 1 + K) of each row, given those (C, 1 + K) of the columns."""
    design = others.copy()
    design[:, 0] = 1
    found = np.zeros((ratings.shape[0], others.shape[1]))
    for row, (start, stop) in enumerate(zip(ratings.indptr, ratings.indptr[1:], strict=False)):
        met = ratings.indices[start:stop]
        x, y = design[met], ratings.data[start:stop] - mean - others[met, 0]
        found[row] = np.linalg.solve(x.T @ x + _RIDGE * np.eye(x.shape[1]), x.T @ y)
    return found
