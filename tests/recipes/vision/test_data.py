"""Batches: split once for all seeds, resized and normalised as the model wants them."""

import pytest
import torch
from torchvision.transforms.v2.functional import resize as torchvision_resize

from lightning_attnbal.apply.cache import FixedViews
from recipes.vision import IMAGENET, ImageData, ImageSet, Normalisation, make_synthetic_images
from recipes.vision.prepare import resize, shift_and_mirror, split_images, with_channels


def numbered(num_train=20, num_test=10):
    """Images that hold their own number, each with its label."""
    images = torch.arange(num_train + num_test).byte().view(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    labels = torch.arange(num_train + num_test)
    names = tuple(map(str, labels.tolist()))
    train, test = images.split([num_train, num_test])
    return ImageSet(train, labels[:num_train], test, labels[num_train:], names)


def labels_of(loader):
    return torch.cat([labels for _, labels in loader]).tolist()


def split_labels(**sizes):
    sizes = {"num_train": None, "num_val": 4, "num_test": None, **sizes}
    parts = split_images(numbered(), **sizes)
    return {split: labels.tolist() for split, (_, labels) in parts.items()}


def test_training_and_validation_rows_are_all_of_the_published_training_part():
    rows = split_labels()
    assert sorted(rows["train"] + rows["val"]) == list(range(20))
    assert sorted(rows["test"]) == list(range(20, 30))


def test_a_larger_training_set_adds_to_a_smaller_one():
    small, large = split_labels(num_train=5, num_test=3), split_labels(num_train=9, num_test=6)
    assert small["val"] == large["val"]
    assert small["train"] == large["train"][:5]
    assert small["test"] == large["test"][:3]


def test_images_keep_their_labels():
    for images, labels in split_images(numbered(), None, num_val=4, num_test=None).values():
        assert images[:, 0, 0, 0].tolist() == labels.tolist()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"num_val": 20}, r"`num_val` to be in \[1, 19\], but got 20"),
        ({"num_train": 17}, r"`num_train` to be in \[1, 16\], but got 17"),
        ({"num_test": 11}, r"`num_test` to be in \[1, 10\], but got 11"),
    ],
    ids=["val", "train", "test"],
)
def test_too_few_rows_are_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        split_labels(**sizes)


def test_the_seed_orders_training_batches_and_nothing_else():
    first, again, other = (
        ImageData(numbered, num_val=4, batch_size=8, seed=seed) for seed in (0, 0, 1)
    )
    for data in (first, again, other):
        data.setup()
    orders = [labels_of(data.train_dataloader()) for data in (first, again, other)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])
    assert labels_of(first.val_dataloader()) == labels_of(other.val_dataloader())
    assert labels_of(first.test_dataloader()) == labels_of(other.test_dataloader())


def test_training_rows_get_mean_zero_and_deviation_one_per_channel():
    data = ImageData(
        lambda: make_synthetic_images(64, 8, shape=(3, 6, 6)), num_val=4, batch_size=60
    )
    data.setup()
    ((images, _),) = data.train_dataloader()
    std, mean = torch.std_mean(images, dim=(0, 2, 3), correction=0)
    torch.testing.assert_close(mean, torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(std, torch.ones(3), atol=1e-5, rtol=0)


def test_grey_images_become_colour_ones_under_the_weights_normalisation():
    data = ImageData(numbered, num_val=4, channels=3, normalisation=IMAGENET, batch_size=16)
    data.setup()
    images, labels = next(iter(data.train_dataloader()))
    expected = (labels.view(-1, 1) / 255 - torch.tensor(IMAGENET.mean)) / torch.tensor(IMAGENET.std)
    torch.testing.assert_close(images[:, :, 0, 0], expected)


def test_colour_images_are_not_made_grey():
    data = ImageData(lambda: make_synthetic_images(8, 8, shape=(3, 6, 6)), num_val=4, channels=1)
    with pytest.raises(ValueError, match="`channels` to be 3 for these images, but got 1"):
        data.setup()


def test_repeated_channels_take_no_memory():
    grey = torch.zeros(2, 1, 4, 4)
    assert with_channels(grey, 3).data_ptr() == grey.data_ptr()


@pytest.mark.parametrize("size", [5, 8, 20], ids="{} pixels".format)
def test_resizing_is_torchvisions(size):
    images = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    expected = torchvision_resize(images.float() / 255, [size, size], antialias=True)
    torch.testing.assert_close(resize(images, size), expected)


def test_augmented_images_are_shifted_and_mirrored_pieces_of_the_image():
    image = torch.arange(1.0, 257.0).view(1, 16, 16)
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    windows = [padded[:, i : i + 16, j : j + 16] for i in range(5) for j in range(5)]
    allowed = [*windows, *(window.flip(-1) for window in windows)]
    drawn = [shift_and_mirror(image) for _ in range(400)]
    hits = [[torch.equal(one, other) for other in allowed].index(True) for one in drawn]
    assert len(set(hits)) == 50


def test_only_training_images_are_augmented_and_only_on_request():
    rows = {}
    for augment in (False, True):
        data = ImageData(num_train=64, num_test=64, batch_size=64, augment=augment)
        data.setup()
        loaders = data.train_dataloader(), data.val_dataloader(), data.test_dataloader()
        rows[augment] = [next(iter(loader))[0] for loader in loaders]
    same = [torch.equal(plain, other) for plain, other in zip(rows[False], rows[True], strict=True)]
    assert same == [False, True, True]


def test_fixed_views_make_augmentation_repeat():
    data = ImageData(num_train=8, augment=True)
    data.setup()
    views = FixedViews(data.train_dataloader().dataset, num_views=2)
    assert len({views[0][0].numpy().tobytes() for _ in range(40)}) == 2


def test_data_are_prepared_once():
    calls = []
    data = ImageData(lambda: calls.append("load") or numbered(), num_val=4)
    data.setup("fit")
    data.setup("test")
    assert calls == ["load"]
    assert data.class_names == numbered().class_names


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_train": 0}, r"`num_train` to be in \[1, inf\)"),
        ({"num_val": 0}, r"`num_val` to be in \[1, inf\)"),
        ({"num_test": 0}, r"`num_test` to be in \[1, inf\)"),
        ({"size": 0}, r"`size` to be in \[1, inf\)"),
        ({"batch_size": 0}, r"`batch_size` to be in \[1, inf\)"),
        ({"channels": 2}, "`channels` to be 1, 3 or None, but got 2"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_numbers_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ImageData(**changes)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (
            (0.5, 0.5),
            (0.5,),
            r"`mean` and `std` to be of one length in \[1, inf\), but got 2 and 1",
        ),
        ((), (), "but got 0 and 0"),
        ((0.5,), (0.0,), r"`std` to be in \(0, inf\), but got \(0.0,\)"),
    ],
    ids=["lengths", "empty", "zero"],
)
def test_what_is_no_normalisation_is_refused(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Normalisation(mean, std)


def test_constant_images_are_normalised_to_zero():
    images = torch.full((4, 1, 2, 2), 0.25)
    torch.testing.assert_close(Normalisation.of(images)(images), torch.zeros(4, 1, 2, 2))
