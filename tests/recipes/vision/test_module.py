"""The classifier logs what it says, in a real Trainer, with and without the balancer."""

import lightning.pytorch as pl
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score
from timm.models.efficientnet import tf_efficientnet_lite0
from torch import nn
from torch.nn.functional import cross_entropy

from lightning_attnbal import AttentionBalancer
from lightning_attnbal.measure import discover_units
from recipes.vision import ImageClassifier, ImageData, make_synthetic_images, small_vit


def tiny_vit(num_classes=4):
    return small_vit(16, 4, width=16, depth=3, heads=2, num_classes=num_classes)


def synthetic_data(**changes):
    return ImageData(make_synthetic_images, num_val=40, num_test=90, **changes)


def trainer(tmp_path, **changes):
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=tmp_path,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        **changes,
    )


@pytest.mark.parametrize("part", ["val", "test"])
def test_logged_scores_are_those_of_scikit_learn(tmp_path, part):
    module, data = ImageClassifier(tiny_vit(), num_classes=4), synthetic_data()
    run = trainer(tmp_path)
    evaluate = run.validate if part == "val" else run.test
    (scores,) = evaluate(module, datamodule=data, verbose=False)
    loader = getattr(data, f"{part}_dataloader")()
    images, labels = map(torch.cat, zip(*loader, strict=True))
    with torch.no_grad():
        logits = module.eval()(images)
    guesses = logits.argmax(1)
    expected = {
        f"{part}/loss": cross_entropy(logits, labels).item(),
        f"{part}/accuracy": accuracy_score(labels, guesses),
        f"{part}/macro_f1": f1_score(labels, guesses, average="macro"),
    }
    assert scores == pytest.approx(expected, abs=1e-5)


def test_synthetic_images_can_be_learnt(tmp_path):
    module, data = ImageClassifier(tiny_vit(), num_classes=4, lr=3e-3), synthetic_data()
    run = trainer(tmp_path, max_epochs=6, limit_val_batches=0)
    run.fit(module, datamodule=data)
    assert run.test(module, datamodule=data, verbose=False)[0]["test/accuracy"] > 0.9


def test_every_parameter_is_in_the_optimizer():
    module = ImageClassifier(tiny_vit(), num_classes=4, lr=2e-4, weight_decay=0.1)
    (group,) = module.configure_optimizers().param_groups
    assert {id(p) for p in group["params"]} == {id(p) for p in module.parameters()}
    assert (group["lr"], group["weight_decay"]) == (2e-4, 0.1)


def test_a_model_that_comes_in_eval_mode_is_trained_in_train_mode():
    assert ImageClassifier(nn.Linear(2, 2).eval(), num_classes=2).model.training


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lr": 0.0}, r"`lr` to be in \(0, inf\), but got 0"),
        ({"weight_decay": -1.0}, r"`weight_decay` to be in \[0, inf\), but got -1"),
        ({"num_classes": 1}, r"`num_classes` to be in \[2, inf\), but got 1"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_numbers_out_of_range_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        ImageClassifier(**{"model": nn.Linear(2, 2), "num_classes": 2, **changes})


def test_units_are_stem_blocks_and_head_in_forward_order():
    efficientnet = discover_units(ImageClassifier(tf_efficientnet_lite0(num_classes=4), 4))
    assert [unit.name for unit in efficientnet] == [
        "stem",
        *(f"blocks.{i}.{j}" for i, n in enumerate([2, 2, 3, 3, 4, 1], 1) for j in range(n)),
        "head",
    ]
    vit = discover_units(ImageClassifier(tiny_vit(), 4))
    assert [unit.name for unit in vit] == ["embeddings", *(f"blocks.{i}" for i in range(3)), "head"]


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        (tiny_vit, {}),
        (lambda: tf_efficientnet_lite0(num_classes=4), {"channels": 3, "size": 32}),
    ],
    ids=["vit", "efficientnet"],
)
def test_the_balancer_keeps_within_its_budget(tmp_path, model, changes):
    module, data = ImageClassifier(model(), num_classes=4), synthetic_data(num_train=32, **changes)
    balancer = AttentionBalancer(budget="40%")
    run = trainer(tmp_path, max_epochs=4, callbacks=[balancer], limit_val_batches=0)
    run.fit(module, datamodule=data)
    assert 0 < balancer.spent.amount <= balancer.limit.amount
    assert balancer.limit.amount == pytest.approx(0.4 * balancer.reference.amount)
