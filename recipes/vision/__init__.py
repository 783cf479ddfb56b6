"""Image classification: digits, clothes or photos, with a small pretrained or fresh model."""

from recipes.vision.data import ImageData
from recipes.vision.models import EFFICIENTNET_LITE0, pretrained_efficientnet_lite0, small_vit
from recipes.vision.module import ImageClassifier
from recipes.vision.prepare import IMAGENET, Normalisation
from recipes.vision.sources import (
    ImageSet,
    load_cifar10,
    load_digits_images,
    load_fashion_mnist,
    make_synthetic_images,
)

__all__ = [
    "EFFICIENTNET_LITE0",
    "IMAGENET",
    "ImageClassifier",
    "ImageData",
    "ImageSet",
    "Normalisation",
    "load_cifar10",
    "load_digits_images",
    "load_fashion_mnist",
    "make_synthetic_images",
    "pretrained_efficientnet_lite0",
    "small_vit",
]
