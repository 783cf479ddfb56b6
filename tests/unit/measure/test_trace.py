"""What the tracer writes down, and that it leaves nothing behind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_attnbal.core import Unit, UnitKind
from lightning_attnbal.measure import UnitTracer, discover_units
from lightning_attnbal.measure._provenance import flatten
from lightning_attnbal.measure._records import TensorSpec
from tests.families import FAMILIES


def units_of(model, *modules):
    names = [name for name, _ in model.named_parameters()]
    return [
        Unit(m, i, UnitKind.BLOCK, (m,), tuple(n for n in names if n.startswith(f"{m}.")), 1)
        for i, m in enumerate(modules)
    ]


def num_hooks(model):
    kinds = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_forward_hooks_with_kwargs",
    )
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


def num_modes():
    return torch._C._len_torch_function_stack()


def sources(call):
    return [leaf.sources for leaf in call.leaves if isinstance(leaf, TensorSpec)]


def trace_of(model, modules, *inputs, **options):
    with UnitTracer(model, units_of(model, *modules), **options) as tracer:
        return tracer.stop(model(*inputs))


class Residual(nn.Module):
    """Views, in-place sums, a residual connection and a detached branch around three layers."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(4, 4) for _ in range(3))
        self.shift = nn.Parameter(torch.ones(4))

    def forward(self, x):
        hidden = self.first(x)
        hidden = hidden + self.shift
        hidden += self.second(hidden[:, :].view(-1, 4))
        buffer = torch.zeros(len(x), 8)
        buffer[:, :4] = hidden
        return self.third(buffer[:, :4]), hidden.detach()


def test_sources_survive_views_in_place_sums_and_slices():
    trace = trace_of(Residual(), ["first", "second", "third"], torch.ones(2, 4))
    assert trace.calls == ("first", "second", "third")
    assert [sources(call) for call in trace.records] == [
        [frozenset()],
        [frozenset({0, "shift"})],
        [frozenset({0, 1, "shift"})],
    ]


def test_detached_inputs_have_no_source():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.high = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            return self.high(self.low(x).detach())

    trace = trace_of(Cut(), ["low", "high"], torch.ones(2, 4))
    assert sources(trace.records[1]) == [frozenset()]
    assert trace.live == frozenset({1})


def test_without_provenance_calls_form_a_chain():
    trace = trace_of(Residual(), ["first", "second", "third"], torch.ones(2, 4), provenance=False)
    assert [sources(call) for call in trace.records] == [
        [frozenset()],
        [frozenset({0})],
        [frozenset({1})],
    ]


def test_repeated_calls_are_all_noted():
    model = nn.Sequential(nn.Linear(4, 4))
    units = units_of(model, "0")
    with UnitTracer(model, units) as tracer:
        trace = tracer.stop(model(model(torch.ones(2, 4))))
    assert trace.calls == ("0", "0")
    assert sources(trace.records[1]) == [frozenset({0})]


def test_autocast_and_grad_mode_are_noted():
    model = nn.Sequential(nn.Linear(4, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16), torch.no_grad():
        trace = trace_of(model, ["0"], torch.ones(2, 4))
    assert trace.records[0].autocast == ("cpu", torch.bfloat16)
    assert not trace.records[0].grad_enabled


def test_kv_caches_are_dropped():
    family = FAMILIES["gpt2"]
    model = family.build()
    with UnitTracer(model, discover_units(model)) as tracer:
        model(input_ids=family.batch()["input_ids"], use_cache=True)
        trace = tracer.stop()
    leaves = [leaf for call in trace.records for leaf in call.leaves]
    assert not any("Cache" in type(leaf).__name__ for leaf in leaves)


def test_kept_inputs_are_copies_without_a_graph():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(inplace=True), nn.Linear(4, 4))
    trace = trace_of(model, ["0", "2"], -torch.ones(2, 4), keep_inputs=True)
    (kept,) = trace.records[1].inputs
    assert not kept.requires_grad
    assert torch.equal(trace.records[0].inputs[0], -torch.ones(2, 4))


@pytest.mark.parametrize("name", ["bert", "tv_resnet18", "nn_transformer", "lstm_attention"])
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_numbers_are_the_same_to_the_last_bit(name, mode):
    family = FAMILIES[name]

    def step(model, tracer):
        model.train(mode == "train")
        if tracer is not None:
            tracer.start()
        loss = family.loss(model, family.batch())
        if tracer is not None:
            tracer.stop(loss)
        loss.backward()
        return [loss.detach(), *(p.grad for p in model.parameters()), *model.state_dict().values()]

    plain, traced = family.build(), family.build()
    tracer = UnitTracer(traced, discover_units(traced))
    expected, found = step(plain, None), step(traced, tracer)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_hooks_and_modes_are_gone_after_stop_and_after_an_exception():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.good, self.bad = nn.Linear(4, 4), nn.Linear(5, 4)

        def forward(self, x):
            return self.bad(self.good(x))

    model = Broken()
    tracer = UnitTracer(model, units_of(model, "good", "bad"))
    modes = num_modes()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"), tracer:
        model(torch.ones(2, 4))
    assert (num_hooks(model), num_modes()) == (0, modes)
    model.bad = nn.Linear(4, 4)
    tracer = UnitTracer(model, units_of(model, "good", "bad"))
    tracer.start()
    model(torch.ones(2, 4))
    assert tracer.stop().calls == ("good", "bad")
    assert (num_hooks(model), num_modes()) == (0, modes)


def test_a_caught_exception_inside_a_unit_does_not_confuse_the_tracer():
    class Careful(nn.Module):
        def __init__(self):
            super().__init__()
            self.low, self.high = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x):
            try:
                self.low(x[:, :3])
            except RuntimeError:
                x = self.low(x)
            return self.high(x)

    trace = trace_of(Careful(), ["low", "high"], torch.ones(2, 4))
    assert trace.calls == ("low", "low", "high")
    assert sources(trace.records[2]) == [frozenset({1})]


def test_wrong_use_is_refused():
    model = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(
        ValueError, match="Expected `units` to name modules of the model, but got x"
    ):
        UnitTracer(model, [Unit("x", 0, UnitKind.BLOCK, ("x",), (), 0)])
    tracer = UnitTracer(model, units_of(model, "0"))
    with pytest.raises(RuntimeError, match="Expected `stop` on a running tracer"):
        tracer.stop()
    with tracer, pytest.raises(RuntimeError, match="Expected `start` on a stopped tracer"):
        tracer.start()


def test_flatten_keeps_none_as_a_leaf():
    assert flatten(((1, None), {"mask": None}))[0] == [1, None, None]
