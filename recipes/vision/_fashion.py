"""Where the four files of Fashion-MNIST may lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from recipes._fetch import FetchError

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")
_BELOW_ROOT = Path("FashionMNIST", "raw")  # of the root that torchvision is given
_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_BY_HAND = (
    "install the Debian package `dataset-fashion-mnist`, or name the `folder` where the four IDX "
    "files lie"
)
_WITHOUT = "The digits of `load_digits_images()` need none of this."


def find_fashion(folders: Sequence[Path]) -> list[Path]:
    """The four files (training images, labels, test images, labels), packed or unpacked.

    Args:
        folders: tried in this order, each as it is and as the root that torchvision was given.

    Raises:
        FetchError: no folder has them all.
    """
    for folder in [place for root in folders for place in (root, root / _BELOW_ROOT)]:
        pairs = ((folder / f"{name}.gz", folder / name) for name in _NAMES)
        files = [next(filter(Path.is_file, pair), None) for pair in pairs]
        found = [file for file in files if file is not None]
        if len(found) == len(_NAMES):
            return found
    msg = (
        f"Found no Fashion-MNIST in {' or '.join(map(str, folders))}. Either {_BY_HAND}, or let "
        f"torchvision fetch them with `download=True`. {_WITHOUT}"
    )
    raise FetchError(msg)


def download_fashion(root: Path) -> None:
    """Let torchvision fetch the files into `root`, those that are not there yet.

    Raises:
        FetchError: they cannot be reached.
    """
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(root, download=True)
    except (OSError, RuntimeError) as error:  # unreachable, or every mirror failed
        msg = (
            f"torchvision could not download Fashion-MNIST into {root} ({error}). "
            f"Either {_BY_HAND}. {_WITHOUT}"
        )
        raise FetchError(msg) from error
