"""A fresh tiny classifier for each test."""

import lightning.pytorch as pl
import pytest

from recipes.text import TextClassifier
from tests.recipes.compare.tiny import CLASSES, LR, encoder_folder


@pytest.fixture
def module(tmp_path):
    """Four blocks of BERT and a head."""
    pl.seed_everything(0, verbose=False)
    return TextClassifier(encoder_folder(tmp_path / "encoder"), CLASSES, lr=LR)
