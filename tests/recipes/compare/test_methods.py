"""Each method trains what its paper says, nothing else, within its budget."""

import inspect
import sys

import pytest
import torch

from recipes.benchmarks.compare import methods as package
from recipes.benchmarks.compare.counted import CountedBudget
from recipes.benchmarks.compare.methods import (
    LISA,
    LPFT,
    AutoFreeze,
    BAdam,
    DropBP,
    FreezeOut,
    Full,
    GreenTrainer,
    LastK,
    LinearProbe,
    Lora,
    Method,
    ScheduledThaw,
)
from tests.recipes.compare.tiny import CLASSES, LIMIT, LR, NUM_BLOCKS, batches, blocks, copied, run

METHODS = [
    Full(),
    LastK(k=2),
    LinearProbe(),
    LPFT(share=0.3),
    Lora(rank=2),
    Lora(rank=2, kind="rslora"),
    Lora(rank=2, kind="dora"),
    Lora(rank=2, kind="adalora"),
    LISA(num_blocks=1, period=5),
    AutoFreeze(num_intervals=8),
    FreezeOut(),
    GreenTrainer(),
    DropBP(adjust_at=None),
    DropBP(),
    BAdam(period=10),
    ScheduledThaw(),
]
pytestmark = pytest.mark.filterwarnings(
    "ignore:No monitor metric specified:UserWarning",  # finetuning-scheduler's own checkpoints
    "ignore:Final phase max_transition_epoch:UserWarning",
)


# -- what all have in common ---------------------------------------------------------------------


def test_every_public_method_is_tested_here():
    public = {v for n in package.__all__ if inspect.isclass(v := getattr(package, n))}
    assert {type(method) for method in METHODS} == public - {Method}
    assert len({method.name for method in METHODS}) == len(METHODS)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_method_spends_its_budget_and_leaves_alone_what_the_user_froze(tmp_path, method, module):
    mine = [*module.model.bert.encoder.layer[1].parameters()]
    mine += [module.model.bert.embeddings.word_embeddings.weight, module.model.classifier.bias]
    for parameter in mine:
        parameter.requires_grad_(False)
    before = [parameter.detach().clone() for parameter in mine]
    limit = 1.2 * LIMIT if isinstance(method, DropBP) and method.adjust_at is not None else LIMIT
    watch, budget, _ = run(tmp_path, method, module, limit)
    assert 0.9 * limit < budget.spent <= limit
    assert budget.num_steps == len(watch.moved)
    assert all(
        moved <= trained for moved, trained in zip(watch.moved, watch.trainable, strict=True)
    )
    assert all(torch.equal(old, now) for old, now in zip(before, mine, strict=True))
    assert not any(parameter.requires_grad for parameter in mine)
    assert max(watch.rates[-1]) < 0.15 * LR


@pytest.mark.parametrize(
    "method",
    [LISA(period=1), DropBP(adjust_at=None), BAdam(period=2, order="random"), GreenTrainer()],
    ids=lambda method: method.name,
)
def test_run_repeats_bit_for_bit(tmp_path, method):
    states = [run(tmp_path, method, limit=1e7)[2].state_dict() for _ in range(2)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


@pytest.mark.parametrize(
    "method", [LastK(k=2), LPFT(), LISA(), FreezeOut(), DropBP()], ids=lambda method: method.name
)
def test_model_is_given_back_as_it_was(tmp_path, method, module):
    trainable = {name: p.requires_grad for name, p in module.named_parameters()}
    run(tmp_path, method, module, limit=1e7)
    assert {name: p.requires_grad for name, p in module.named_parameters()} == trainable
    assert all(m.training for m in module.modules())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in module.modules())
    assert not {"log", "training_step", "on_train_batch_start"} & vars(module).keys()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: LastK(k=0), "`k` to be in"),
        (lambda: LPFT(share=1.0), "`share` to be in"),
        (lambda: Lora(rank=0), "`rank` to be in"),
        (lambda: Lora(kind="vera"), "`kind` to be one of"),
        (lambda: Lora(initial_share=0.5, final_share=0.5), "`final_share` to be in"),
        (lambda: LISA(period=0), "`period` to be in"),
        (lambda: AutoFreeze(percentile=0), "`percentile` to be in"),
        (lambda: FreezeOut(first_end=0), "`first_end` to be in"),
        (lambda: GreenTrainer(ratio=1.1), "`ratio` to be in"),
        (lambda: DropBP(rate=1.0), "`rate` to be in"),
        (lambda: BAdam(order="upwards"), "`order` to be one of"),
        (lambda: ScheduledThaw(thaw_share=0), "`thaw_share` to be in"),
    ],
)
def test_settings_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("method", "name"),
    [(Lora(), "peft"), (BAdam(), "badam"), (ScheduledThaw(), "finetuning-scheduler")],
)
def test_missing_package_is_named(monkeypatch, module, method, name):
    monkeypatch.setitem(sys.modules, name.replace("-", "_"), None)
    use = method.callbacks if isinstance(method, ScheduledThaw) else method.prepare
    argument = CountedBudget(1.0) if isinstance(method, ScheduledThaw) else module
    with pytest.raises(ModuleNotFoundError, match=f"Expected the package {name}, but it is not"):
        use(argument)


# -- static --------------------------------------------------------------------------------------


def test_last_k_trains_the_last_blocks_and_the_head(tmp_path):
    watch, *_ = run(tmp_path, LastK(k=2))
    assert {tuple(blocks(moved)) for moved in watch.moved} == {(2, 3)}
    assert all("model.classifier.weight" in moved for moved in watch.moved)
    assert not any("embeddings" in name for moved in watch.moved for name in moved)


def test_last_k_refuses_more_blocks_than_there_are(tmp_path):
    with pytest.raises(ValueError, match=r"`k` to be in \[1, 4\], but got 5"):
        run(tmp_path, LastK(k=5))


def test_linear_probe_trains_the_head_alone(tmp_path):
    watch, *_ = run(tmp_path, LinearProbe(), limit=2e7)
    assert set().union(*watch.moved) == {"model.classifier.weight", "model.classifier.bias"}


def test_lp_ft_runs_its_schedule_once_in_each_phase(tmp_path):
    watch, *_ = run(tmp_path, LPFT(share=0.4, probe_lr_factor=3.0))
    is_probing = [not blocks(trained) for trained in watch.trainable]
    turn = is_probing.index(False)
    assert is_probing == [True] * turn + [False] * (len(is_probing) - turn)
    rates = [rate for (rate,) in watch.rates]
    assert rates[0] == pytest.approx(3 * LR)
    assert rates[turn - 1] < 0.1 * LR
    assert rates[turn] == pytest.approx(LR, rel=0.1)
    assert len(watch.moved[turn]) == len(watch.trainable[turn])


# -- adapters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "adalora"])
def test_adapters_and_head_train_and_the_base_does_not(tmp_path, module, kind):
    linear = 6 * NUM_BLOCKS  # query, key, value, output and two of the feed-forward layer
    before = copied(module)
    watch, _, module = run(tmp_path, Lora(rank=2, kind=kind), module, limit=1e7)
    head = {"model.classifier.weight", "model.classifier.bias"}
    after = {n.replace(".base_layer", ""): p for n, p in module.named_parameters()}
    assert all(torch.equal(before[name], after[name]) for name in before.keys() - head)
    trained = watch.trainable[0]
    assert head <= trained
    assert all("lora_" in name for name in trained - head)
    per_layer = {"lora": 2, "rslora": 2, "dora": 3, "adalora": 3}[kind]
    assert len(trained - head) == per_layer * linear
    assert set().union(*watch.moved) == trained


def test_adapters_are_scaled_as_their_kind_says(module):
    expected = {"lora": 2.0, "rslora": 2.0 * 4**0.5, "dora": 2.0}
    found = {}
    for kind in expected:
        fresh = type(module)(module.model.config._name_or_path, CLASSES)
        Lora(rank=4, kind=kind).prepare(fresh)
        layer = fresh.model.bert.encoder.layer[0].attention.self.query
        found[kind] = layer.scaling["default"]
    assert found == expected


def test_adapted_model_starts_where_the_base_was(module):
    batch = batches(1)[0]
    module.eval()
    before = module(batch["input_ids"], batch["attention_mask"])
    Lora(rank=2).prepare(module)
    module.eval()
    torch.testing.assert_close(module(batch["input_ids"], batch["attention_mask"]), before)


def test_adalora_ends_with_the_average_rank_asked_for(tmp_path, module):
    *_, module = run(tmp_path, Lora(rank=2, kind="adalora"), module, limit=3e7)
    kept = [(p != 0).sum().item() for n, p in module.named_parameters() if "lora_E" in n]
    assert len(kept) == 6 * NUM_BLOCKS
    assert sum(kept) <= 2 * len(kept) < 3 * len(kept)
    (plain,) = _costs(tmp_path, Lora(rank=3))
    (adaptive,) = _costs(tmp_path, Lora(rank=2, kind="adalora"))
    assert adaptive > plain  # the regularisation is charged


def _costs(tmp_path, method):
    _, budget, _ = run(tmp_path, method, data=batches(1), limit=4e6)
    return set(budget.costs.known.values())


# -- blocks by turns -----------------------------------------------------------------------------


def test_lisa_draws_blocks_and_always_trains_the_rest(tmp_path):
    watch, *_ = run(tmp_path, LISA(num_blocks=2, period=4))
    drawn = [tuple(blocks(moved)) for moved in watch.moved]
    assert all(len(found) == 2 for found in drawn)
    assert all(len(set(drawn[i : i + 4])) == 1 for i in range(0, len(drawn), 4))
    assert len(set(drawn)) > 2
    always = {"model.classifier.weight", "model.bert.embeddings.word_embeddings.weight"}
    assert all(always <= moved for moved in watch.moved)


def test_badam_trains_one_block_and_the_head_at_a_time(tmp_path):
    watch, *_ = run(tmp_path, BAdam(period=4))
    turns = [blocks(moved) for moved in watch.moved]
    assert turns[:16] == [[b] for b in (3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0, 3)]
    assert all("model.classifier.weight" in moved for moved in watch.moved)
    assert not any("embeddings" in name for moved in watch.moved for name in moved)


def test_scheduled_thaw_goes_down_one_unit_at_a_time(tmp_path):
    watch, *_ = run(tmp_path, ScheduledThaw(thaw_share=0.5))
    found = [tuple(blocks(moved)) for moved in watch.moved]
    assert list(dict.fromkeys(found)) == [(), (3,), (2, 3), (1, 2, 3), (0, 1, 2, 3)]
    assert any("embeddings" in name for name in watch.moved[-1])
    assert not any("embeddings" in name for name in watch.moved[0])
