"""Text classification: customer reviews or texts of one's own, with a small pretrained encoder."""

from recipes.text.config import TextDataConfig, TextEncoderConfig
from recipes.text.corpus import Corpus, load_csv, load_reviews, make_synthetic
from recipes.text.data import ReviewsData
from recipes.text.module import TextClassifier, packaged_encoder
from recipes.text.predictor import load_predictor
from recipes.text.table import TextTable, load_table, make_table
from recipes.text.tasks import TextTasks, make_encoder
from recipes.text.tasks_data import TextData, TextTasksData

__all__ = [
    "Corpus",
    "ReviewsData",
    "TextClassifier",
    "TextData",
    "TextDataConfig",
    "TextEncoderConfig",
    "TextTable",
    "TextTasks",
    "TextTasksData",
    "load_csv",
    "load_predictor",
    "load_reviews",
    "load_table",
    "make_encoder",
    "make_synthetic",
    "make_table",
    "packaged_encoder",
]
