"""Small data and small models."""

import pytest
import torch

from recipes.recommendation import (
    BERT4RecConfig,
    RecommendationData,
    RecommendationDataConfig,
    SASRecConfig,
    make_bert4rec,
    make_sasrec,
)

SIZES = {"lr": 1e-2, "width": 8, "num_layers": 2, "num_heads": 2, "dropout": 0.0}


def small_data(**options):
    sizes = {"num_val": 16, "num_test": 32, "batch_size": 8, "max_length": 6}
    data = RecommendationData(
        RecommendationDataConfig(**{"source": "synthetic", **sizes, **options})
    )
    data.setup()
    return data


@pytest.fixture(scope="session")
def data():
    return small_data()


@pytest.fixture(params=["sasrec", "bert4rec"])
def make_model(request):
    """Makes a small model for data; one after the other of each kind."""

    def make(data, **options):
        torch.manual_seed(0)
        if request.param == "sasrec":
            return make_sasrec(SASRecConfig(**(SIZES | options)), data)
        return make_bert4rec(BERT4RecConfig(**({"mask_share": 0.5} | SIZES | options)), data)

    return make
