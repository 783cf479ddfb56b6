"""Coarse groups of classes, for a second question about the same images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor, tensor

DIGITS = {"even": tuple("02468"), "odd": tuple("13579")}
FASHION = {
    "top": ("T-shirt/top", "Pullover", "Coat", "Shirt"),
    "dress": ("Dress",),
    "trouser": ("Trouser",),
    "shoe": ("Sandal", "Sneaker", "Ankle boot"),
    "bag": ("Bag",),
}
CIFAR10 = {
    "animal": ("bird", "cat", "deer", "dog", "frog", "horse"),
    "vehicle": ("airplane", "automobile", "ship", "truck"),
}
CIFAR100 = {
    "aquatic mammals": ("beaver", "dolphin", "otter", "seal", "whale"),
    "fish": ("aquarium_fish", "flatfish", "ray", "shark", "trout"),
    "flowers": ("orchid", "poppy", "rose", "sunflower", "tulip"),
    "food containers": ("bottle", "bowl", "can", "cup", "plate"),
    "fruit and vegetables": ("apple", "mushroom", "orange", "pear", "sweet_pepper"),
    "household electrical devices": ("clock", "keyboard", "lamp", "telephone", "television"),
    "household furniture": ("bed", "chair", "couch", "table", "wardrobe"),
    "insects": ("bee", "beetle", "butterfly", "caterpillar", "cockroach"),
    "large carnivores": ("bear", "leopard", "lion", "tiger", "wolf"),
    "large man-made outdoor things": ("bridge", "castle", "house", "road", "skyscraper"),
    "large natural outdoor scenes": ("cloud", "forest", "mountain", "plain", "sea"),
    "large omnivores and herbivores": ("camel", "cattle", "chimpanzee", "elephant", "kangaroo"),
    "medium-sized mammals": ("fox", "porcupine", "possum", "raccoon", "skunk"),
    "non-insect invertebrates": ("crab", "lobster", "snail", "spider", "worm"),
    "people": ("baby", "boy", "girl", "man", "woman"),
    "reptiles": ("crocodile", "dinosaur", "lizard", "snake", "turtle"),
    "small mammals": ("hamster", "mouse", "rabbit", "shrew", "squirrel"),
    "trees": ("maple_tree", "oak_tree", "palm_tree", "pine_tree", "willow_tree"),
    "vehicles 1": ("bicycle", "bus", "motorcycle", "pickup_truck", "train"),
    "vehicles 2": ("lawn_mower", "rocket", "streetcar", "tank", "tractor"),
}
"""Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009: its superclasses."""


def group_of_class(class_names: Sequence[str], groups: Mapping[str, Sequence[str]]) -> Tensor:
    """(K,) index of the group of each class.

    Raises:
        ValueError: a class is in no group or in two, or a group has another class.

    Example:
        >>> group_of_class(("cat", "car", "dog"), {"animal": ("cat", "dog"), "thing": ("car",)})
        tensor([0, 1, 0])
    """
    index = [(name, i) for i, names in enumerate(groups.values()) for name in names]
    if sorted(name for name, _ in index) != sorted(class_names):
        known = ", ".join(map(repr, class_names))
        msg = f"Expected `data.groups` to name each of {known} once, but got {dict(groups)}."
        raise ValueError(msg)
    group = dict(index)
    return tensor([group[name] for name in class_names])
