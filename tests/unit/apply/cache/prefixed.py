"""Two equal models, one trained with its lowest blocks cached, one without, side by side."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lightning_attnbal.apply.cache import ActivationStore, PrefixCache
from lightning_attnbal.apply.cache._proof import random_state, set_random_state
from lightning_attnbal.core import Unit, UnitKind

WIDTH, TOKENS, SAMPLES = 6, 5, 12
CLOSE = 1e-6

CALLS: Counter[int] = Counter()
"""How often blocks ran, by identity."""
ROWS: Counter[int] = Counter()
"""On how many samples."""


class Block(nn.Module):
    """Mixes the tokens of a sample, then its features; counts its calls outside of the model."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(TOKENS, TOKENS)
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: Tensor) -> Tensor:
        CALLS[id(self)] += 1
        ROWS[id(self)] += len(hidden)
        hidden = hidden + self.mix(hidden.transpose(1, 2)).transpose(1, 2)
        return hidden + torch.tanh(self.inner(hidden))


class Body(nn.Module):
    """The host: four blocks, called one after the other."""

    def __init__(self, block: Callable[[], nn.Module] = Block) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(block() for _ in range(4))

    def forward(self, hidden: Tensor) -> Tensor:
        for block in self.blocks:
            hidden = self.between(block(hidden))
        return hidden

    def between(self, hidden: Tensor) -> Tensor:
        return hidden


class Net(nn.Module):
    """A body and a head on the mean token, shape (B, 3)."""

    def __init__(self, body: nn.Module | None = None) -> None:
        super().__init__()
        self.body = Body() if body is None else body
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        return self.head(self.body(*args, **kwargs).mean(dim=1))


class TokenBlock(nn.Module):
    """Attention among the tokens that the mask keeps; rows do not depend on their padding."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(WIDTH, WIDTH)

    def forward(self, hidden: Tensor, mask: Tensor) -> Tensor:
        CALLS[id(self)] += 1
        keep = mask[:, None, :].bool()
        scores = (hidden @ hidden.transpose(1, 2)).masked_fill(~keep, float("-inf"))
        return hidden + torch.tanh(self.inner(scores.softmax(dim=-1) @ hidden))


class TokenBody(Body):
    """A host that is told what is padding."""

    def __init__(self, block: Callable[[], nn.Module] = TokenBlock) -> None:
        super().__init__(block)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        for block in self.blocks:
            hidden = block(hidden, attention_mask)
        return hidden


class TokenNet(nn.Module):
    """Pools what is no padding, unless `pool` does otherwise."""

    def __init__(self, body: nn.Module | None = None) -> None:
        super().__init__()
        self.body = TokenBody() if body is None else body
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, hidden: Tensor, attention_mask: Tensor) -> Tensor:
        return self.head(self.pool(self.body(hidden, attention_mask), attention_mask))

    def pool(self, hidden: Tensor, mask: Tensor) -> Tensor:
        return (hidden * mask[..., None]).sum(dim=1) / mask.sum(dim=1, keepdim=True)


def padded(epochs: int, size: int = 4, count: int = SAMPLES, *, left: bool = False) -> list[Any]:
    """Per epoch batches of (hidden, mask) as long as their longest sample, lengths in [2, 7]."""
    generator = torch.Generator().manual_seed(3)
    tokens = torch.randn(count, 7, WIDTH, generator=generator)
    lengths = torch.randint(2, 8, (count,), generator=generator)
    orders = shuffled(torch.arange(count), epochs, size)
    return [[_pad(tokens[i], lengths[i], left=left) for i in order] for order in orders]


def _pad(tokens: Tensor, lengths: Tensor, *, left: bool) -> tuple[Tensor, Tensor]:
    width = int(lengths.max())
    hidden, mask = torch.zeros(len(tokens), width, WIDTH), torch.zeros(len(tokens), width).long()
    for i, length in enumerate(lengths.tolist()):
        where = slice(width - length, width) if left else slice(length)
        hidden[i, where] = tokens[i, :length]
        mask[i, where] = 1
    return hidden, mask


def loss_of(model: nn.Module, batch: Any) -> Tensor:
    """A loss of the output alone; the batch is x, a tuple or keyword arguments."""
    if isinstance(batch, dict):
        output = model(**batch)
    else:
        output = model(*batch) if isinstance(batch, tuple) else model(batch)
    return output.square().mean() + output.exp().mean()


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return build().train()


def samples(count: int = SAMPLES, seed: int = 0) -> Tensor:
    """Inputs, shape (count, L, D)."""
    return torch.randn(count, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def shuffled(data: Any, epochs: int, size: int = 4, seed: int = 1) -> list[list[Any]]:
    """Per epoch batches of tensors, tuples of them or dictionaries, in another order each time."""
    generator = torch.Generator().manual_seed(seed)
    leaf = data if isinstance(data, Tensor) else next(iter(_leaves(data)))
    orders = [torch.randperm(len(leaf), generator=generator).split(size) for _ in range(epochs)]
    return [[_take(data, chosen) for chosen in order] for order in orders]


def _leaves(data: Any) -> Iterable[Tensor]:
    return data.values() if isinstance(data, dict) else data


def _take(data: Any, chosen: Tensor) -> Any:
    if isinstance(data, dict):
        return {name: leaf[chosen] for name, leaf in data.items()}
    return data[chosen] if isinstance(data, Tensor) else tuple(leaf[chosen] for leaf in data)


def units_of(model: nn.Module) -> list[Unit]:
    """One unit per block of the body, and the head."""
    names = [f"body.blocks.{i}" for i in range(len(model.body.blocks))] + ["head"]
    return [_unit(model, i, name) for i, name in enumerate(names)]


def _unit(model: nn.Module, index: int, name: str) -> Unit:
    parameters = dict(model.get_submodule(name).named_parameters())
    return Unit(
        name=name,
        index=index,
        kind=UnitKind.BLOCK,
        modules=(name,),
        parameters=tuple(f"{name}.{n}" for n in parameters),
        num_parameters=sum(p.numel() for p in parameters.values()),
    )


def freeze(model: nn.Module, units: Sequence[Unit], cached: int) -> None:
    """The lowest units in eval mode without gradients, the others trained."""
    for i, unit in enumerate(units):
        for name in unit.modules:
            module = model.get_submodule(name)
            module.train(i >= cached)
            if isinstance(module, nn.TransformerEncoderLayer):
                module.training = True  # keeps PyTorch's fused inference path off
        for name in unit.parameters:
            model.get_parameter(name).requires_grad_(i >= cached)


class Twins:
    """A model with a cached prefix, and one without; every step is taken by both.

    Attributes:
        worst: largest `difference` of a loss or of a gradient so far.
        losses: of the cached model.
        cache: of the cached model.
    """

    def __init__(
        self,
        build: Callable[[], nn.Module] = Net,
        loss: Callable[[nn.Module, Any], Tensor] = loss_of,
        *,
        cached: int = 2,
        units: Sequence[Unit] | None = None,
        store: ActivationStore | None = None,
        audit_every: int = 100,
    ) -> None:
        self.plain, self.model = seeded(build), seeded(build)
        self.units = units_of(self.model) if units is None else list(units)
        self.store = ActivationStore(ram="16MiB") if store is None else store
        self.cache = PrefixCache(self.model, self.units, self.store, audit_every=audit_every)
        self.loss, self.worst, self.losses = loss, 0.0, []
        self.cut(cached)

    @property
    def names(self) -> tuple[str, ...]:
        return self.cache.engaged

    @property
    def reasons(self) -> str:
        return " | ".join(self.cache.refused.values())

    def cut(self, cached: int) -> None:
        """Freeze and cache so many of the lowest units."""
        for model in (self.plain, self.model):
            freeze(model, self.units, cached)
        self.optimizers = [
            torch.optim.SGD([p for p in m.parameters() if p.requires_grad], lr=0.01)
            for m in (self.plain, self.model)
        ]
        self.cache.engage([unit.name for unit in self.units[:cached]])

    def epoch(self, batches: Iterable[Any], *, accumulate: int = 1) -> None:
        self.cache.begin_epoch()
        for i, batch in enumerate(batches, 1):
            self.step(batch, is_last=i % accumulate == 0)

    def train(self, epochs: Iterable[Iterable[Any]], **options: Any) -> None:
        for batches in epochs:
            self.epoch(batches, **options)

    def step(self, batch: Any, *, is_last: bool = True) -> None:
        state = random_state()
        expected = self.loss(self.plain, copy.deepcopy(batch))
        expected.backward()
        set_random_state(state)
        self.cache.begin_step()
        found = self.loss(self.model, copy.deepcopy(batch))
        self.cache.end_forward(found)
        found.backward()
        self.cache.end_backward()
        self.losses.append(found.item())
        self.worst = max(self.worst, difference(expected, found), self._gradients())
        if is_last:
            for optimizer in self.optimizers:
                optimizer.step()
                optimizer.zero_grad()
            self._align()

    def _align(self) -> None:
        """Both start the next step alike, so that rounding does not grow from step to step."""
        with torch.no_grad():
            for p, q in zip(self.plain.parameters(), self.model.parameters(), strict=True):
                if p.requires_grad:
                    q.copy_(p)

    def _gradients(self) -> float:
        """The largest difference between gradients of the two."""
        worst = 0.0
        for p, q in zip(self.plain.parameters(), self.model.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None)
            if p.grad is not None:
                worst = max(worst, difference(p.grad, q.grad))
        return worst

    def close(self) -> None:
        self.cache.close()
        self.store.close()


def difference(expected: Tensor, found: Tensor) -> float:
    """Largest |expected - found| over 1 + largest |expected|; inf if something is NaN."""
    expected, found = expected.detach().double(), found.detach().double()
    if bool((expected - found).isnan().any()):
        return float("inf")
    return float((expected - found).abs().max() / (1 + expected.abs().max()))


@contextmanager
def calls_counted(*blocks: nn.Module) -> Iterator[list[int]]:
    """How often blocks ran, by then; hooks in the prefix would count as a change of it."""
    before, calls = [CALLS[id(block)] for block in blocks], []
    yield calls
    calls += [CALLS[id(block)] - n for block, n in zip(blocks, before, strict=True)]


def traces(model: nn.Module) -> list[str]:
    """What caching may have left on a model."""
    left = [f"{name}.forward" for name, m in model.named_modules() if "forward" in vars(m)]
    for name, module in model.named_modules():
        if module._forward_hooks or module._forward_pre_hooks:
            left.append(f"hooks of {name}")
    return left
