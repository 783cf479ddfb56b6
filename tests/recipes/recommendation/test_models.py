import lightning.pytorch as pl
import pandas as pd
import pytest
import torch
from torch.nn.functional import cross_entropy
from torchmetrics.retrieval import RetrievalMRR, RetrievalNormalizedDCG, RetrievalRecall

from lightning_attnbal.callbacks import AttentionBalancer, TaskSettings
from recipes.recommendation import BERT4RecConfig, SASRecConfig, make_bert4rec, make_sasrec
from recipes.recommendation.ranking import ranking_scores, ranks_of
from tests.recipes.recommendation.conftest import SIZES, small_data


def test_scores_of_ranks_are_torchmetrics():
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(40, 60, generator=generator)
    seen = torch.rand(40, 60, generator=generator) < 0.3
    target = torch.randint(1, 60, (40,), generator=generator)
    ranks = ranks_of(scores, target, seen)
    rows = torch.arange(40)
    allowed = ~seen
    allowed[:, 0], allowed[rows, target] = False, True
    relevant = torch.zeros_like(seen)
    relevant[rows, target] = True
    indexes = rows[:, None].expand_as(scores)[allowed]
    for name, metric in {
        "ndcg": RetrievalNormalizedDCG(top_k=10),
        "recall": RetrievalRecall(top_k=10),
        "mrr": RetrievalMRR(),
    }.items():
        expected = metric(scores[allowed], relevant[allowed], indexes=indexes)
        torch.testing.assert_close(ranking_scores(ranks)[name].mean(), expected)


def test_a_model_that_says_nothing_is_in_the_middle():
    ranks = ranks_of(torch.zeros(1, 102), torch.tensor([5]), torch.zeros(1, 102, dtype=torch.bool))
    assert ranks.item() == 51


@pytest.mark.parametrize("task", ["next", "rating", "like"])
def test_no_answer_knows_what_comes_with_it_or_after_it(make_model, data, task):
    towers = make_model(data).towers.eval()
    batch = data.collate([data.rows(task, "test")[i] for i in range(8)])
    last = torch.arange(8), batch["target"].int().argmax(1)
    changed = {key: value.clone() for key, value in batch.items()}
    changed["items"][last] = 1 + changed["items"][last] % towers.num_items
    changed["ratings"][last] = 1.0
    torch.testing.assert_close(towers(batch)[0][last], towers(changed)[0][last])
    earlier = last[0], last[1] - 1
    changed["items"][earlier] = 1 + changed["items"][earlier] % towers.num_items
    assert not torch.allclose(towers(batch)[0][last], towers(changed)[0][last])


def test_causal_states_in_training_know_only_what_was_before():
    data = small_data()
    towers = make_sasrec(SASRecConfig(**SIZES), data).towers
    batch = data.collate([data.rows("next", "train")[0]])
    changed = {key: value.clone() for key, value in batch.items()}
    changed["items"][0, 3] = 1 + changed["items"][0, 3] % towers.num_items
    same = (towers(batch)[0] - towers(changed)[0]).abs().amax(-1)[0] < 1e-6
    assert same.tolist() == [True] * 4 + [False] * (len(same) - 4)


def test_masks_are_drawn_among_what_is_there_and_at_least_one():
    data = small_data()
    model = make_bert4rec(BERT4RecConfig(**SIZES, mask_share=1e-9), data)
    batch = data.collate([data.rows("next", "train")[i] for i in range(8)])
    _, target = model.towers(batch)
    assert target.sum(1).tolist() == [1] * 8
    assert (batch["items"][target] > 0).all()


def test_the_loss_over_all_items_by_hand(data):
    module = make_sasrec(SASRecConfig(**SIZES), data)
    batch = data.collate([data.rows("next", "train")[i] for i in range(4)])
    states, _ = module.towers(batch)
    vectors = module.towers.item_vectors(torch.arange(1, module.towers.num_items + 1))
    losses = [
        cross_entropy(vectors @ module.towers.user_vectors(states[b, n]), batch["items"][b, n] - 1)
        for b in range(4)
        for n in range(batch["items"].shape[1])
        if batch["items"][b, n]
    ]
    torch.testing.assert_close(module.losses({"next": batch})["next"], torch.stack(losses).mean())


def test_drawing_every_item_is_the_softmax_over_all(data, monkeypatch):
    full = make_sasrec(SASRecConfig(**SIZES), data)
    drawn = make_sasrec(SASRecConfig(**SIZES, loss="sampled"), data)
    drawn.load_state_dict(full.state_dict())
    every = torch.arange(1, full.towers.num_items + 1)
    monkeypatch.setattr(torch, "randint", lambda *_, **__: every)
    batch = {"next": data.collate([data.rows("next", "train")[i] for i in range(4)])}
    torch.testing.assert_close(drawn.losses(batch)["next"], full.losses(batch)["next"])


def test_ratings_and_likes_count_where_something_is_asked(data):
    module = make_sasrec(SASRecConfig(**SIZES), data)
    rows = [data.rows("rating", "train")[i] for i in range(4)]
    batch = data.collate(rows)
    alone = [module.losses({t: data.collate([r]) for t in ("rating", "like")}) for r in rows]
    sizes = torch.tensor([float(len(r["items"])) for r in rows])
    both = module.losses({"rating": batch, "like": batch})
    for task, loss in both.items():
        each = torch.stack([losses[task] for losses in alone])
        torch.testing.assert_close(loss, (each * sizes).sum() / sizes.sum())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 9}, "Expected `model.width` to be a multiple of 2"),
        ({"num_layers": 0}, "Expected `model.num_layers` to be in"),
        ({"dropout": 1.0}, "Expected `model.dropout` to be in"),
        ({"lr": 0.0}, "Expected `model.lr` to be in"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_sizes_outside_their_range_are_refused(make_model, data, options, message):
    with pytest.raises(ValueError, match=message):
        make_model(data, **options)


def fit(module, data, **options):
    sizes = {"max_epochs": 1, "logger": False, "enable_checkpointing": False}
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    quiet["num_sanity_val_steps"] = 0
    trainer = pl.Trainer(**(sizes | quiet | options))
    trainer.fit(module, datamodule=data)
    return trainer


@pytest.mark.parametrize("balanced", [True, False], ids=["in turn", "together"])
def test_all_tasks_are_trained_and_scored(balanced, data):
    module = make_sasrec(SASRecConfig(**SIZES), data)
    balancer = AttentionBalancer("50%", tasks=TaskSettings(same_samples=True))
    trainer = fit(module, data, callbacks=[balancer] if balanced else [])
    scores = {k: v for part in trainer.test(module, data, verbose=False) for k, v in part.items()}
    metrics = {"next": ("ndcg", "recall", "mrr"), "rating": ("rmse", "r2"), "like": ("auc",)}
    expected = {f"test/{t}/{name}" for t, names in metrics.items() for name in (*names, "loss")}
    assert set(scores) == expected
    assert {f"test/{task}/{name}" for task, name in module.headline.items()} <= expected


def test_a_walk_that_anyone_could_predict_is_predicted(tmp_path):
    """Everybody goes through 30 items in one order, each from a place of their own."""
    rows = [
        (user, (user * 7 + step) % 30, 3 + user % 2, step)
        for user in range(60)
        for step in range(12)
    ]
    columns = ["user", "item", "rating", "timestamp"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "walk.csv", index=False)
    data = small_data(
        source="files", path=str(tmp_path / "walk.csv"), tasks=["next"], max_length=10
    )
    module = make_sasrec(SASRecConfig(**(SIZES | {"width": 16})), data)
    trainer = fit(module, data, max_epochs=5, limit_val_batches=0)
    (scores,) = trainer.test(module, data, verbose=False)
    assert scores["test/next/ndcg"] > 0.95
    assert scores["test/next/ndcg"] > 2 * data.baselines()["popularity"]["next/ndcg"]


def test_nothing_is_pinned_to_a_device(data):
    """A step runs on torch's meta device too: what is made in it is made where the rows are."""
    module = make_sasrec(SASRecConfig(**SIZES, loss="sampled"), data).to("meta")
    rows = data.collate([data.rows("next", "train")[i] for i in range(2)])
    batch = {key: value.to("meta") for key, value in rows.items()}
    losses = module.losses(dict.fromkeys(data.tasks, batch))
    assert {loss.device.type for loss in losses.values()} == {"meta"}
