"""bf16 on processors without instructions for it."""

import warnings

import pytest
import torch

from recipes._common import processor
from recipes.benchmarks._bf16 import use_float32_products, widened

CPU = torch.device("cpu")


def on(monkeypatch, **capabilities):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"architecture": "x86_64", "avx512_f": True}, True),
        ({"architecture": "x86_64", "avx512_f": False}, False),
        ({"architecture": "aarch64"}, True),
        ({}, True),
    ],
)
def test_who_has_units(monkeypatch, capabilities, expected):
    on(monkeypatch, **capabilities)
    assert processor.has_bf16_units() is expected


def test_torch_tells_what_is_asked_for():
    assert isinstance(processor.has_bf16_units(), bool)


def test_slow_bf16_is_named_with_the_remedy(monkeypatch):
    on(monkeypatch, architecture="x86_64", avx512_f=False)
    with pytest.warns(UserWarning, match="trainer.precision=32-true"):
        processor.warn_of_slow_precision("bf16-mixed", CPU)


@pytest.mark.parametrize(
    ("precision", "device", "avx512"),
    [("32-true", "cpu", False), ("bf16-mixed", "cuda", False), ("bf16-mixed", "cpu", True)],
)
def test_nothing_is_said_where_bf16_is_not_slow(monkeypatch, precision, device, avx512):
    on(monkeypatch, architecture="x86_64", avx512_f=avx512)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        processor.warn_of_slow_precision(precision, torch.device(device))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("mm", [(5, 7), (7, 3)]),
        ("bmm", [(2, 5, 7), (2, 7, 3)]),
        ("addmm", [(3,), (5, 7), (7, 3)]),
        ("baddbmm", [(2, 5, 3), (2, 5, 7), (2, 7, 3)]),
    ],
)
def test_products_by_way_of_float32_are_the_same_products(name, shapes, dtype):
    generator = torch.Generator().manual_seed(0)
    factors = [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    scales = {"beta": 0.5, "alpha": 2.0} if "add" in name else {}
    found = widened(name)(*factors, **scales)
    expected = getattr(torch, name)(*(factor.double() for factor in factors), **scales)
    assert found.dtype == dtype
    rounding = torch.finfo(dtype).eps
    assert torch.allclose(found.double(), expected, rtol=2 * rounding, atol=4 * rounding)


def test_gradients_pass_through(monkeypatch):
    """What autograd and autocast make of a layer is the same with the products taken over."""

    def trained():
        torch.manual_seed(0)
        layer, inputs = torch.nn.Linear(16, 8), torch.randn(4, 16)
        with torch.autocast("cpu", torch.bfloat16):
            loss = layer(inputs).float().square().mean()
        loss.backward()
        return layer.weight.grad

    before = trained()
    on(monkeypatch, architecture="x86_64", avx512_f=False)
    use_float32_products.cache_clear()
    library = use_float32_products()
    try:
        after = trained()
    finally:
        library._destroy()
        use_float32_products.cache_clear()
    assert torch.allclose(before, after, rtol=1e-2, atol=1e-4)


def test_processors_with_units_keep_torch_as_it_is(monkeypatch):
    on(monkeypatch, architecture="x86_64", avx512_f=True)
    use_float32_products.cache_clear()
    assert use_float32_products() is None
    use_float32_products.cache_clear()
