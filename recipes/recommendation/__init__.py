"""Recommendation: next item, rating and like from what a user met before."""

from recipes.recommendation.config import BERT4RecConfig, RecommendationDataConfig, SASRecConfig
from recipes.recommendation.data import RecommendationData
from recipes.recommendation.interactions import Interactions, make_interactions
from recipes.recommendation.models import make_bert4rec, make_sasrec
from recipes.recommendation.module import Recommender
from recipes.recommendation.predictor import RecommendationPredictor, load_predictor
from recipes.recommendation.sources import load_csv, load_movielens_100k, make_synthetic
from recipes.recommendation.towers import CausalTowers, MaskedTowers, Ratings

__all__ = [
    "BERT4RecConfig",
    "CausalTowers",
    "Interactions",
    "MaskedTowers",
    "Ratings",
    "RecommendationData",
    "RecommendationDataConfig",
    "RecommendationPredictor",
    "Recommender",
    "SASRecConfig",
    "load_csv",
    "load_movielens_100k",
    "load_predictor",
    "make_bert4rec",
    "make_interactions",
    "make_sasrec",
    "make_synthetic",
]
