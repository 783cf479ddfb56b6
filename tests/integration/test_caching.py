"""The cached level in real runs: the same training, for less."""

import lightning.pytorch as pl
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lightning_attnbal import AttentionBalancer, CacheSettings
from lightning_attnbal.allocate import LastKAllocator
from lightning_attnbal.core import CACHED
from lightning_attnbal.tracking import AttentionMeasured, CacheUsed
from tests.integration.tiny import BATCH, Classifier, dataset

LEVELS = ("cached", "frozen", "full")


def run(tmp_path, balancer, *, dropout=0.0, data=None, module=None, **options):
    """Fit the small classifier on 40 samples; returns module and Trainer."""
    pl.seed_everything(3, verbose=False)
    module = module or Classifier(dropout=dropout)
    options = {"max_epochs": 4, **options}
    trainer = pl.Trainer(
        callbacks=[balancer],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        accelerator="cpu",
        **options,
    )
    data = dataset(42) if data is None else data  # the last batch of an epoch is smaller
    loader = DataLoader(data, batch_size=BATCH, shuffle=True)
    trainer.fit(module, loader, DataLoader(dataset(42), batch_size=BATCH))
    return module, trainer


def answers(module):
    """What the trained module says about other samples; key biases, say, make no difference."""
    with torch.no_grad():
        return module.eval()(dataset(20, seed=9).tensors[0])


def pair(tmp_path, dropout=0.0, **options):
    """The static last-two schedule, frozen and cached."""
    found = []
    for caches in (False, True):
        torch.manual_seed(0)
        allocator = LastKAllocator(2, caches=caches)
        balancer = AttentionBalancer("80%", allocator=allocator, levels=LEVELS, lr_schedule=None)
        found.append((*run(tmp_path, balancer, dropout=dropout, **options), balancer))
    return found


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"dropout": 0.2},
        {"accumulate_grad_batches": 2},
        {"gradient_clip_val": 0.5},
        {"val_check_interval": 0.5},
    ],
    ids=lambda options: "-".join(options) or "plain",
)
def test_cached_run_trains_what_the_frozen_one_does(tmp_path, options):
    (frozen, first, dearer), (cached, second, cheaper) = pair(tmp_path, **options)
    assert second.global_step == first.global_step
    torch.testing.assert_close(answers(frozen), answers(cached), atol=1e-5, rtol=1e-5)
    assert cheaper.plan[cheaper.units[0].name] == CACHED
    used = [event for event in cheaper.events if isinstance(event, CacheUsed)][-1]
    assert used.rows_read > 0.5 * used.rows
    assert cheaper.flops.amount < 0.75 * dearer.flops.amount
    assert used.flops_saved == pytest.approx(dearer.flops.amount - cheaper.flops.amount, rel=0.05)


class Attention(nn.Module):
    """One head, on torch's fused kernel."""

    def __init__(self, width):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x):
        heads = (part(x).unsqueeze(1) for part in (self.query, self.key, self.value))
        return nn.functional.scaled_dot_product_attention(*heads).squeeze(1)


class Block(nn.Module):
    """Attention beside a skip path."""

    def __init__(self, width):
        super().__init__()
        self.attention, self.last = Attention(width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.last(self.attention(x))


class Attending(Classifier):
    """The classifier with attention that is looked at in frozen layers, too."""

    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(*(Block(16) for _ in range(4)))


def test_later_epochs_are_read_where_attention_is_looked_at(tmp_path):
    torch.manual_seed(0)
    allocator = LastKAllocator(2, caches=True)
    balancer = AttentionBalancer("80%", allocator=allocator, levels=LEVELS)
    run(tmp_path, balancer, module=Attending())
    assert any(isinstance(event, AttentionMeasured) for event in balancer.events)
    used = [event for event in balancer.events if isinstance(event, CacheUsed)][-1]
    assert used.rows_read > 0.5 * used.rows > 0


def test_reduced_precision(tmp_path):
    (frozen, _, _), (cached, _, balancer) = pair(tmp_path, precision="bf16-mixed")
    torch.testing.assert_close(answers(frozen), answers(cached), atol=2e-2, rtol=1e-2)
    assert balancer.plan[balancer.units[0].name] == CACHED


@pytest.mark.parametrize("budget", ["15%", "25%", "40%"])
def test_a_share_is_met_with_caching_on(tmp_path, budget):
    balancer = AttentionBalancer(budget)
    run(tmp_path, balancer, data=dataset(160), max_epochs=6)
    assert balancer.spent <= balancer.limit
    assert balancer.spent / balancer.limit > 0.97


def test_full_budget_caches_nothing(tmp_path):
    balancer = AttentionBalancer("100%")
    run(tmp_path, balancer)
    assert set(map(str, balancer.plan.values())) == {"full"}
    assert not [event for event in balancer.events if isinstance(event, CacheUsed)]


def test_one_epoch_is_too_little_to_cache(tmp_path):
    balancer = AttentionBalancer("30%")
    run(tmp_path, balancer, max_epochs=1)
    assert CACHED not in balancer.plan.values()


def test_too_small_a_store_is_not_planned(tmp_path):
    balancer = AttentionBalancer("30%", cache=CacheSettings(ram="1KiB"))
    run(tmp_path, balancer)
    assert CACHED not in balancer.plan.values()


class Augmented(Dataset):
    """Replaces a random token of each sample, anew each time."""

    def __init__(self, inner):
        self.inner = inner

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        tokens, label = self.inner[index]
        tokens = tokens.clone()
        tokens[:] = torch.randint(20, tokens.shape)
        return tokens, label


def test_random_augmentation_is_found_out_within_an_epoch(tmp_path):
    balancer = AttentionBalancer("60%", allocator=LastKAllocator(2, caches=True))
    run(tmp_path, balancer, data=Augmented(dataset(80)), max_epochs=6)
    kinds = [set(decision.plan.values()) for decision in balancer.history]
    assert any(CACHED in kind for kind in kinds)
    assert CACHED not in kinds[-1]
    refused = next(d for d in balancer.history if "not cached after all" in d.why)
    assert refused.epoch <= 2
    assert "differ from epoch to epoch" in refused.why
    assert balancer.spent <= balancer.limit


class Restless(Classifier):
    """Adds noise between the embedding and the encoder."""

    def forward(self, tokens):
        x = self.embedding(tokens)
        return self.head(self.encoder(x + 1e-3 * torch.randn_like(x)).mean(1))


def test_a_random_prefix_is_refused_and_planned_without(tmp_path):
    balancer = AttentionBalancer("60%", allocator=LastKAllocator(2, caches=True))
    run(tmp_path, balancer, module=Restless())
    assert CACHED not in balancer.plan.values()
    problems = [event.problems for event in balancer.events if isinstance(event, CacheUsed)][-1]
    assert any(why in " ".join(problems) for why in ("random", "differ from epoch to epoch"))


class Failing(Classifier):
    """Raises in the second epoch."""

    def training_step(self, batch, batch_idx):
        if self.trainer.current_epoch == 1 and batch_idx == 3:
            raise RuntimeError("no more")
        return super().training_step(batch, batch_idx)


def test_an_exception_leaves_no_trace_on_the_model(tmp_path):
    module = Failing()
    balancer = AttentionBalancer("60%", allocator=LastKAllocator(2, caches=True))
    with pytest.raises(RuntimeError, match="no more"):
        run(tmp_path, balancer, module=module)
    assert all("forward" not in vars(m) for m in module.modules())
    assert all(p.requires_grad for p in module.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in module.modules())


def test_the_model_is_as_before_after_the_fit(tmp_path):
    module, _ = run(tmp_path, AttentionBalancer("30%"))
    assert all("forward" not in vars(m) for m in module.modules())
    assert all(type(m) is nn.Linear for m in [module.head])
