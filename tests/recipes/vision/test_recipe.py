"""The image recipe: labels of each task, models of both libraries, what is saved."""

import json

import lightning.pytorch as pl
import numpy as np
import pytest
import timm
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from lightning_attnbal.callbacks import AttentionBalancer, TaskSettings
from recipes._common.config import Source
from recipes._fetch import FetchError
from recipes.vision import (
    Augment,
    Backbone,
    EfficientNetConfig,
    ImageDataConfig,
    ImageTasksData,
    Scale,
    TimmConfig,
    TorchvisionConfig,
    ViTConfig,
    load_predictor,
    make_efficientnet,
    make_timm,
    make_torchvision,
    make_vit,
)
from recipes.vision.backbones import feature_width
from recipes.vision.groups import CIFAR10, CIFAR100, DIGITS, FASHION, group_of_class

TASKS = ["class", "group", "rotation"]
COLOUR = {"channels": 3, "size": 32, "scale": Scale.imagenet}


def make_data(**keys):
    sizes = {"num_train": 24, "num_val": 8, "num_test": 12, "batch_size": 8}
    made = {"source": Source.synthetic, "tasks": TASKS, **sizes, **keys}
    data = ImageTasksData(ImageDataConfig(**made))
    data.setup()
    return data


@pytest.fixture(scope="module")
def data():
    return make_data()


@pytest.fixture
def module(data):
    torch.manual_seed(0)
    return make_vit(ViTConfig(width=16, depth=2, heads=2, lr=1e-3), data)


def make_trainer(tmp_path, **options):
    options = {"max_epochs": 1, "logger": False, "enable_checkpointing": False, **options}
    bars = {"enable_progress_bar": False, "enable_model_summary": False}
    return pl.Trainer(accelerator="cpu", default_root_dir=tmp_path, **bars, **options)


def whole(data, task, split="test"):
    rows = data.rows(task, split)
    images, labels = zip(
        *((row["images"], row["labels"]) for row in map(rows.__getitem__, range(len(rows)))),
        strict=True,
    )
    return torch.stack(images), torch.stack(labels)


def test_the_groups_are_a_coarser_division_of_the_classes(data):
    (images, classes), (same, groups) = whole(data, "class"), whole(data, "group")
    assert torch.equal(images, same)
    assert torch.equal(groups, classes // 2)
    assert data.class_names["group"] == ("flat", "steep")


def test_images_are_turned_by_their_label_always_in_the_same_way(data):
    (images, _), (turned, turns) = whole(data, "class"), whole(data, "rotation")
    for image, other, turn in zip(images, turned, turns, strict=True):
        assert torch.equal(image.rot90(int(turn), (1, 2)), other)
    assert turns.bincount().tolist() == [3, 3, 3, 3]
    assert torch.equal(whole(data, "rotation")[0], turned)


def test_a_mirrored_image_is_turned_after_it_was_mirrored():
    keys = {"augment": Augment.mirror, "views": 2, "size": 7}  # too small to be shifted
    plain, views = make_data(size=7), make_data(**keys)
    images, _ = whole(plain, "class", "train")
    for _ in range(3):
        turned, turns = whole(views, "rotation", "train")
        for image, other, turn in zip(images, turned, turns, strict=True):
            back = other.rot90(-int(turn), (1, 2))
            assert torch.equal(back, image) or torch.equal(back, image.flip(-1))


def versions(rows):
    """How many different images each of the first rows gives in 30 times."""
    return [len({rows[i]["images"].numpy().tobytes() for _ in range(30)}) for i in range(8)]


def test_a_number_of_views_makes_augmentation_repeat():
    fixed = versions(make_data(augment=Augment.shift, views=2).rows("class", "train"))
    assert max(fixed) == 2
    assert min(versions(make_data(augment=Augment.shift).rows("class", "train"))) > 4


@pytest.mark.parametrize("tasks", [["class", "group"], TASKS], ids=["same", "turned"])
def test_only_tasks_that_see_the_same_images_share_what_is_cached(tasks):
    assert make_data(tasks=tasks).same_samples == ("rotation" not in tasks)


def test_images_that_tasks_share_pass_the_backbone_once(tmp_path, module, data):
    calls = []
    module.encoder.register_forward_hook(lambda *_: calls.append(1))
    trainer = make_trainer(tmp_path, limit_train_batches=1, limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    assert len(calls) == 2  # class and group, and rotation


def test_no_training_or_validation_image_is_a_test_image_or_another():
    data = make_data(source=Source.embedded, num_train=None, num_val=200, num_test=None)
    parts = {
        split: {image.numpy().tobytes() for image in whole(data, "class", split)[0]}
        for split in ("train", "val", "test")
    }
    assert parts["train"].isdisjoint(parts["val"] | parts["test"])
    assert parts["val"].isdisjoint(parts["test"])


@pytest.mark.parametrize(
    ("groups", "sizes"),
    [(DIGITS, [5, 5]), (FASHION, [4, 1, 1, 3, 1]), (CIFAR10, [6, 4]), (CIFAR100, [5] * 20)],
    ids=["digits", "fashion", "cifar10", "cifar100"],
)
def test_every_class_is_in_one_group(groups, sizes):
    names = sorted(name for group in groups.values() for name in group)
    assert [len(group) for group in groups.values()] == sizes
    assert len(set(names)) == sum(sizes)
    assert group_of_class(names, groups).bincount().tolist() == sizes


@pytest.mark.parametrize(
    "groups", [{"a": ["direction 0"]}, {"a": ["direction 0"] * 2}], ids=["missing", "twice"]
)
def test_groups_that_are_no_division_are_refused(groups):
    with pytest.raises(ValueError, match=r"`data.groups` to name each of 'direction 0', .* once"):
        make_data(groups=groups)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"tasks": ["colour"]}, "`data.tasks` to be among 'class', 'group', 'rotation'"),
        ({"channels": 2}, "`data.channels` to be 1, 3 or null, but got 2"),
        ({"size": 0}, r"`data.size` to be in \[1, inf\)"),
        ({"views": 0}, r"`data.views` to be in \[1, inf\)"),
        ({"source": Source.hub, "name": "mnist9"}, "one of 'fashion-mnist', 'cifar10', 'cifar100'"),
        ({"source": Source.files, "path": "x"}, r"`data.size` \(pixels a side\)"),
        ({"source": Source.files, "path": "x", "size": 4}, "a folder of pictures per class"),
    ],
    ids=["task", "channels", "size", "views", "name", "no size", "no folder"],
)
def test_values_out_of_range_are_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        make_data(**keys)


def test_an_unreachable_set_names_the_alternatives(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("recipes.vision.sources.DEBIAN_FOLDER", tmp_path / "debian")
    monkeypatch.setenv("ATTNBAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("torchvision.datasets.FashionMNIST", fail)
    monkeypatch.setattr("torchvision.datasets.CIFAR100", fail)
    with pytest.raises(FetchError, match=r"no route.*`dataset-fashion-mnist`"):
        make_data(source=Source.hub, name="fashion-mnist")
    with pytest.raises(FetchError, match=r"CIFAR-100 .*no route.*`cifar-100-python`"):
        make_data(source=Source.hub, name="cifar100")


@pytest.fixture
def pictures(tmp_path):
    """Twelve grey pictures of two classes, dark left or dark right, 20 × 10 pixels."""
    for name, dark in (("left", 0), ("right", 1)):
        (tmp_path / "own" / name).mkdir(parents=True)
        for i in range(6):
            pixels = np.full((10, 20), 200 + i, np.uint8)
            pixels[:, 10 * dark : 10 * dark + 10] = 20 + i
            Image.fromarray(pixels).save(tmp_path / "own" / name / f"{i}.png")
    return tmp_path / "own"


def own(folder, **keys):
    sizes = {"num_train": None, "num_val": 2, "num_test": None, "size": 8}
    named = {"source": Source.files, "path": str(folder), "tasks": ["class", "rotation"]}
    return make_data(**{**sizes, **named, **keys})


def test_a_folder_of_ones_own_is_split_and_made_square(pictures):
    data = own(pictures)
    assert data.class_names["class"] == ("left", "right")
    assert [len(data.rows("class", split)) for split in ("train", "val", "test")] == [8, 2, 2]
    assert data.shape == (3, 8, 8)
    images, labels = whole(data, "class")
    is_darker_left = images[..., :3].mean((1, 2, 3)) < images[..., 5:].mean((1, 2, 3))
    assert is_darker_left.tolist() == (labels == 0).tolist()


def test_a_folder_with_its_own_parts_keeps_them(pictures, tmp_path):
    for part in ("train", "test"):
        (tmp_path / "parts").mkdir(exist_ok=True)
        (tmp_path / "parts" / part).symlink_to(pictures)
    with pytest.raises(ValueError, match=r"`num_val` to be in"):  # all of them are test pictures
        own(tmp_path / "parts")


def test_a_file_that_is_no_picture_is_named(pictures):
    (pictures / "left" / "0.png").write_text("no picture")
    with pytest.raises(ValueError, match=r"left/0.png to be a picture, but reading it failed"):
        own(pictures)


def test_groups_of_ones_own_are_needed_for_the_task(pictures):
    with pytest.raises(ValueError, match=r"images without groups; or say .*data.groups="):
        own(pictures, tasks=["class", "group"])


def test_the_predictor_sees_pictures_as_they_were_trained_on(tmp_path, pictures):
    data = own(pictures)
    torch.manual_seed(0)
    module = make_vit(ViTConfig(width=16, depth=1, heads=2, lr=1e-3), data).eval()
    module.save_pretrained(tmp_path / "model")
    images, labels = whole(data, "class")
    with torch.no_grad():
        expected = module({"class": {"images": images, "labels": labels}})["class"].softmax(-1)
    paths = [str(pictures / "left" / "4.png"), str(pictures / "right" / "3.png")]  # every fifth
    records = load_predictor(tmp_path / "model")(paths, task="class", top=2)
    found = [{one["label"]: one["probability"] for one in record["class"]} for record in records]
    rows = sorted(expected.tolist())
    assert sorted([one["left"], one["right"]] for one in found) == [
        pytest.approx(row, abs=1e-5) for row in rows
    ]
    assert json.loads(json.dumps(records)) == records


def test_weights_load_in_timm(tmp_path, module, data):
    module.save_pretrained(tmp_path)
    card = json.loads((tmp_path / "recipe.json").read_text())["backbone"]
    plain = timm.create_model(card["name"], num_classes=0, **card["arguments"]).eval()
    plain.load_state_dict(load_file(tmp_path / "backbone.safetensors"))
    images = torch.randn(2, *data.shape)
    torch.testing.assert_close(plain(images), module.eval().encoder(images))


def test_weights_load_in_torchvision(tmp_path):
    data = make_data(**COLOUR)
    config = TorchvisionConfig(name="squeezenet1_1", lr=1e-3)
    with pytest.raises(ValueError, match="ends in a linear layer, not 'squeezenet1_1'"):
        make_torchvision(config, data)
    module = make_torchvision(TorchvisionConfig(name="resnet18", lr=1e-3), data).eval()
    module.save_pretrained(tmp_path)
    plain = torchvision.models.resnet18()
    plain.fc = nn.Identity()
    plain.load_state_dict(load_file(tmp_path / "backbone.safetensors"))
    images = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(plain.eval()(images), module.encoder(images))
    assert module.heads["class"].in_features == 512


def test_weights_of_another_model_are_refused(tmp_path, module):
    module.save_pretrained(tmp_path)
    card = json.loads((tmp_path / "recipe.json").read_text())
    card["backbone"]["arguments"]["embed_dim"] = 32
    (tmp_path / "recipe.json").write_text(json.dumps(card))
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_predictor(tmp_path)
    card["backbone"]["arguments"] = {"checkpoint_path": "/etc/passwd"}
    (tmp_path / "recipe.json").write_text(json.dumps(card))
    with pytest.raises(
        ValueError, match=r"`arguments` to be among img_size: int, .*checkpoint_path"
    ):
        load_predictor(tmp_path)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"library": "timm", "name": "hf-hub:someone/model"}, "one of timm's classifiers"),
        ({"library": "torchvision", "name": "inception_v3"}, "one of torchvision's classifiers"),
        ({"library": "keras", "name": "resnet50"}, "`library` to be one of 'timm', 'torchvision'"),
        ({"library": "timm", "name": "resnet18", "arguments": {"depth": True}}, "got depth=True"),
    ],
    ids=["hub", "several outputs", "library", "type"],
)
def test_what_is_no_model_of_the_libraries_is_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        Backbone(**keys)


def test_pretrained_weights_that_cannot_be_had_name_the_packaged_ones(monkeypatch):
    def fail(*_, **__):
        raise OSError("no route")

    monkeypatch.setattr("timm.create_model", fail)
    monkeypatch.setattr("torchvision.models.get_model", fail)
    for library, name in (("timm", "resnet18"), ("torchvision", "resnet18"), ("timm", "resnet10")):
        if name in timm.list_models() or library == "torchvision":
            with pytest.raises(FetchError, match=r"no route.*`model=image_efficientnet`"):
                Backbone(library=library, name=name).build(pretrained=True)


@pytest.mark.parametrize(
    ("make", "config", "keys", "width"),
    [
        (make_efficientnet, EfficientNetConfig(pretrained=False, lr=1e-3), COLOUR, 1280),
        (make_timm, TimmConfig(name="resnet10t", lr=1e-3), COLOUR, 512),
        (make_timm, TimmConfig(name="resnet10t", lr=1e-3), {"size": 32}, 512),
    ],
    ids=["efficientnet", "timm in colour", "timm in grey"],
)
def test_heads_read_pooled_features(make, config, keys, width):
    module = make(config, make_data(**keys))
    assert {task: head.in_features for task, head in module.heads.items()} == dict.fromkeys(
        TASKS, width
    )


@pytest.mark.parametrize(
    ("make", "config"),
    [
        (make_efficientnet, EfficientNetConfig(pretrained=False, lr=1e-3)),
        (make_torchvision, TorchvisionConfig(name="resnet18", lr=1e-3)),
    ],
    ids=["efficientnet", "torchvision"],
)
def test_models_for_colour_want_it(make, config, data):
    with pytest.raises(ValueError, match=r"`data.channels` to be 3 for this model, but got 1"):
        make(config, data)


def test_finding_the_width_leaves_the_statistics_alone():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert feature_width(model, (3, 2, 2)) == 16
    assert model.training
    torch.testing.assert_close(dict(model.state_dict()), before, rtol=0, atol=0)


def test_baselines_are_scored_on_the_test_rows(data):
    scores = data.baselines()
    assert list(scores) == ["majority", "pixels"]
    assert scores["majority"]["rotation/accuracy"] == 0.25


def test_the_balancer_keeps_within_its_budget(tmp_path, module, data):
    balancer = AttentionBalancer("60%", tasks=TaskSettings(same_samples=data.same_samples))
    trainer = make_trainer(tmp_path, max_epochs=2, callbacks=[balancer], limit_val_batches=0)
    trainer.fit(module, datamodule=data)
    assert 0 < balancer.spent.amount <= balancer.limit.amount
