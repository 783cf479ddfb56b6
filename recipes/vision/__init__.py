"""Image classification: digits, clothes or photos, with a small pretrained or fresh model."""

from recipes.vision.backbones import Backbone
from recipes.vision.config import (
    Augment,
    EfficientNetConfig,
    ImageDataConfig,
    Scale,
    TimmConfig,
    TorchvisionConfig,
    ViTConfig,
)
from recipes.vision.data import ImageData
from recipes.vision.models import EFFICIENTNET_LITE0, pretrained_efficientnet_lite0, small_vit
from recipes.vision.module import ImageClassifier
from recipes.vision.pictures import load_folder, open_picture
from recipes.vision.predictor import load_predictor
from recipes.vision.prepare import IMAGENET, Normalisation
from recipes.vision.sources import (
    ImageSet,
    load_cifar10,
    load_cifar100,
    load_digits_images,
    load_fashion_mnist,
    make_synthetic_images,
)
from recipes.vision.tasks import (
    ImageTasks,
    make_efficientnet,
    make_timm,
    make_torchvision,
    make_vit,
)
from recipes.vision.tasks_data import ImageTasksData

__all__ = [
    "EFFICIENTNET_LITE0",
    "IMAGENET",
    "Augment",
    "Backbone",
    "EfficientNetConfig",
    "ImageClassifier",
    "ImageData",
    "ImageDataConfig",
    "ImageSet",
    "ImageTasks",
    "ImageTasksData",
    "Normalisation",
    "Scale",
    "TimmConfig",
    "TorchvisionConfig",
    "ViTConfig",
    "load_cifar10",
    "load_cifar100",
    "load_digits_images",
    "load_fashion_mnist",
    "load_folder",
    "load_predictor",
    "make_efficientnet",
    "make_synthetic_images",
    "make_timm",
    "make_torchvision",
    "make_vit",
    "open_picture",
    "pretrained_efficientnet_lite0",
    "small_vit",
]
