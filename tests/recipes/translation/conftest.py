"""Made-up languages, and a model that is trained in a second."""

import pytest

from recipes._common import Source
from recipes.translation import MBartConfig, TranslationData, TranslationDataConfig, make_mbart


@pytest.fixture
def data_config():
    def make(**changes):
        values = {
            "source": Source.synthetic,
            "tasks": ["en-de", "en-es"],
            "num_train": 64,
            "num_val": 8,
            "num_test": 12,
            "batch_size": 16,
            "bucket": 16,
        }
        return TranslationDataConfig(**{**values, **changes})

    return make


@pytest.fixture
def model_config():
    def make(**changes):
        values = {
            "lr": 1e-2,
            "vocab_size": 360,
            "width": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "heads": 2,
            "ffn": 32,
            "dropout": 0.0,
            "num_beams": 2,
        }
        return MBartConfig(**{**values, **changes})

    return make


@pytest.fixture
def data(data_config):
    made = TranslationData(data_config())
    made.setup()
    return made


@pytest.fixture
def translator(data, model_config):
    return make_mbart(model_config(), data)
