"""Images arrive whole, or one error says what to do."""

import gzip
import re

import pytest
import torch
import torchvision
from sklearn.datasets import load_digits

from recipes._fetch import FetchError
from recipes.vision import (
    ImageSet,
    load_cifar10,
    load_digits_images,
    load_fashion_mnist,
    make_synthetic_images,
)

FIRST = "train-images-idx3-ubyte.gz"


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    """Neither the Debian package nor a file in the cache; the cache folder."""
    monkeypatch.setattr("recipes.vision.sources.DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setenv("ATTNBAL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def parts(images):
    return images.train_images, images.train_labels, images.test_images, images.test_labels


def image_set(**changes):
    whole = {
        "train_images": torch.zeros(3, 1, 4, 4, dtype=torch.uint8),
        "train_labels": torch.tensor([0, 1, 1]),
        "test_images": torch.zeros(2, 1, 4, 4, dtype=torch.uint8),
        "test_labels": torch.tensor([1, 0]),
        "class_names": ("a", "b"),
    }
    return ImageSet(**{**whole, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": torch.zeros(3, 1, 4, 4)}, "`train_images` to be uint8.*torch.float32"),
        ({"test_images": torch.zeros(2, 4, 4, dtype=torch.uint8)}, r"`test_images`.*\(2, 4, 4\)"),
        ({"test_images": torch.zeros(0, 1, 4, 4, dtype=torch.uint8)}, r"`test_images`.*\(0, 1, 4"),
        ({"test_images": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}, r"\(1, 4, 4\).*\(3, 4, 4\)"),
        ({"train_labels": torch.tensor([0, 1])}, r"`train_labels` .* shape \(3,\)"),
        ({"test_labels": torch.tensor([0.0, 1.0])}, "`test_labels` to be int64.*torch.float32"),
        (
            {"train_labels": torch.tensor([0, 2, 1])},
            r"`train_labels` .* \[0, 2\), but got \[0, 2\]",
        ),
        ({"test_labels": torch.tensor([-1, 1])}, r"`test_labels` .* but got \[-1, 1\]"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_what_is_no_set_of_images_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        image_set(**changes)


def test_digits_are_those_of_scikit_learn_in_their_order():
    images, expected = load_digits_images(), load_digits()
    assert [len(part) for part in parts(images)] == [1437, 1437, 360, 360]
    assert images.shape == (1, 8, 8)
    both = torch.cat([images.train_images, images.test_images]).squeeze(1)
    assert torch.equal((both / 255 * 16).round().double(), torch.from_numpy(expected.images))
    labels = torch.cat([images.train_labels, images.test_labels])
    assert labels.tolist() == expected.target.tolist()


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "unpacked"])
@pytest.mark.parametrize("below", [".", "FashionMNIST/raw"], ids=["folder", "torchvision root"])
def test_fashion_is_read_from_a_folder(tmp_path, write_fashion, fashion_parts, packed, below):
    write_fashion(tmp_path / below, packed=packed)
    images = load_fashion_mnist(tmp_path)
    found = [part.squeeze(1) if part.ndim == 4 else part for part in parts(images)]
    for part, expected in zip(found, fashion_parts, strict=True):
        assert torch.equal(part, expected.to(part.dtype))
    assert (len(images.class_names), images.class_names[9]) == (10, "Ankle boot")


def test_fashion_equals_what_torchvision_reads(tmp_path, write_fashion):
    write_fashion(tmp_path / "FashionMNIST" / "raw", packed=False)
    images = load_fashion_mnist(tmp_path)
    train = torchvision.datasets.FashionMNIST(tmp_path, train=True)
    assert torch.equal(images.train_images.squeeze(1), train.data)
    assert torch.equal(images.train_labels, train.targets)
    assert list(images.class_names) == train.classes


def test_fashion_comes_from_the_debian_package_first_and_then_from_the_cache(
    nowhere, write_fashion, tmp_path
):
    raw = write_fashion(nowhere / "FashionMNIST" / "raw")
    assert len(load_fashion_mnist().train_images) == 6
    write_fashion(tmp_path / "debian")
    (raw / FIRST).write_bytes(b"not read")
    assert len(load_fashion_mnist().train_images) == 6


def test_missing_fashion_names_the_three_ways(nowhere):
    ways = r"debian or .*cache\. .*`dataset-fashion-mnist`.*`folder`.*`download=True`"
    with pytest.raises(FetchError, match=ways):
        load_fashion_mnist()


def test_a_folder_that_lacks_a_file_is_not_replaced_by_another_place(tmp_path, write_fashion):
    write_fashion(tmp_path / "mine")
    (tmp_path / "mine" / FIRST).unlink()
    with pytest.raises(FetchError, match=re.escape(f"Found no Fashion-MNIST in {tmp_path}/mine.")):
        load_fashion_mnist(tmp_path / "mine")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not packed", "whole IDX file, but reading it failed: Not a gzipped file"),
        (
            gzip.compress(b"\0\0\x08\x03" + b"\1" * 90)[:-12],
            "whole IDX file, but reading it failed",
        ),
        (gzip.compress(b"\0\0"), "whole IDX file, but reading it failed"),
        (
            gzip.compress(b"\0\0\x0d\x01\0\0\0\1abcd"),
            r"unsigned bytes, .* type 13 and sizes \(1,\)",
        ),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\5abcd"), r"sizes \(5,\), with 4 bytes after it"),
    ],
    ids=["not packed", "cut short", "no header", "floats", "too few bytes"],
)
def test_a_damaged_file_is_named(tmp_path, write_fashion, content, message):
    (write_fashion(tmp_path) / FIRST).write_bytes(content)
    with pytest.raises(ValueError, match=f"{FIRST} .*{message}"):
        load_fashion_mnist(tmp_path)


def test_fashion_is_downloaded_into_the_cache_when_asked(nowhere, write_fashion, monkeypatch):
    def fetch(root, *, download):
        assert download
        write_fashion(root / "FashionMNIST" / "raw")

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", fetch)
    assert len(load_fashion_mnist(download=True).test_images) == 3
    assert (nowhere / "FashionMNIST" / "raw" / FIRST).is_file()


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("no route")], ids=repr)
def test_unreachable_sources_name_the_alternatives(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("torchvision.datasets.FashionMNIST", fail)
    monkeypatch.setattr("torchvision.datasets.CIFAR10", fail)
    with pytest.raises(FetchError, match=r"no route.*`dataset-fashion-mnist`.*`folder`"):
        load_fashion_mnist(tmp_path, download=True)
    with pytest.raises(FetchError, match=r"no route.*`download=True`.*`load_digits_images\(\)`"):
        load_cifar10(tmp_path, download=True)


def test_missing_cifar10_is_said_by_torchvision_itself(tmp_path):
    with pytest.raises(FetchError, match=r"CIFAR-10 in .*not found or corrupted.*`download=True`"):
        load_cifar10(tmp_path)


def test_cifar10_is_turned_to_channels_first(tmp_path, monkeypatch):
    class Stub:
        classes = tuple(f"class {i}" for i in range(10))

        def __init__(self, root, *, train, download):
            self.data = torch.arange(2 * 4 * 4 * 3).reshape(2, 4, 4, 3).byte().numpy()
            self.targets = [3, 9] if train else [0, 1]

    monkeypatch.setattr("torchvision.datasets.CIFAR10", Stub)
    images = load_cifar10(tmp_path)
    assert images.shape == (3, 4, 4)
    assert images.train_images[0, :, 0, 1].tolist() == [3, 4, 5]
    assert (images.train_labels.tolist(), images.test_labels.tolist()) == ([3, 9], [0, 1])


def test_synthetic_images_repeat_with_their_seed():
    first, again, other = (make_synthetic_images(8, 4, seed=seed) for seed in (1, 1, 2))
    assert all(map(torch.equal, parts(first), parts(again)))
    assert not torch.equal(first.train_images, other.train_images)


def test_synthetic_classes_must_be_two_at_least():
    with pytest.raises(ValueError, match=r"`num_classes` to be in \[2, inf\), but got 1"):
        make_synthetic_images(num_classes=1)
