"""Text classification: customer reviews or a CSV of one's own, with a small pretrained encoder."""

from recipes.text.corpus import Corpus, load_csv, load_reviews, make_synthetic
from recipes.text.data import ReviewsData
from recipes.text.module import TextClassifier, packaged_encoder
from recipes.text.tasks import TextTasks, TextTasksData

__all__ = [
    "Corpus",
    "ReviewsData",
    "TextClassifier",
    "TextTasks",
    "TextTasksData",
    "load_csv",
    "load_reviews",
    "make_synthetic",
    "packaged_encoder",
]
