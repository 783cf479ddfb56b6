"""bf16 on processors without instructions for it."""

import platform
import warnings
from pathlib import Path

import pytest
import torch

from recipes._common import processor
from recipes.benchmarks import _bf16
from recipes.benchmarks._bf16 import use_float32_products, widened

CPU = torch.device("cpu")
CPUINFO = Path("/proc/cpuinfo")


def on(monkeypatch, capability):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)


@pytest.mark.parametrize(("capability", "expected"), [("AVX512", True), ("AVX2", False)])
def test_who_has_units(monkeypatch, capability, expected):
    on(monkeypatch, capability)
    assert processor.has_bf16_units() is expected


@pytest.mark.skipif(platform.machine() != "x86_64" or not CPUINFO.exists(), reason="x86 on Linux")
def test_torch_says_what_the_kernel_says():
    assert processor.has_bf16_units() is ("avx512f" in CPUINFO.read_text())


def test_slow_bf16_is_named_with_the_remedy(monkeypatch):
    on(monkeypatch, "AVX2")
    with pytest.warns(UserWarning, match="trainer.precision=32-true"):
        processor.warn_of_slow_precision("bf16-mixed", CPU)


@pytest.mark.parametrize(
    ("precision", "device", "capability"),
    [("32-true", "cpu", "AVX2"), ("bf16-mixed", "cuda", "AVX2"), ("bf16-mixed", "cpu", "AVX512")],
)
def test_nothing_is_said_where_bf16_is_not_slow(monkeypatch, precision, device, capability):
    on(monkeypatch, capability)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        processor.warn_of_slow_precision(precision, torch.device(device))
    assert not said


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

    taken = set()

    def seen(name):
        product = widened(name)
        return lambda *args, **scales: (taken.add(name), product(*args, **scales))[1]

    before = trained()
    on(monkeypatch, "AVX2")
    monkeypatch.setattr(_bf16, "widened", seen)
    use_float32_products.cache_clear()
    library = use_float32_products()
    try:
        after = trained()
    finally:
        library._destroy()
        use_float32_products.cache_clear()
    assert taken == {"addmm", "mm"}
    assert torch.allclose(before, after, rtol=1e-2, atol=1e-4)


def test_processors_with_units_keep_torch_as_it_is(monkeypatch):
    on(monkeypatch, "AVX512")
    use_float32_products.cache_clear()
    assert use_float32_products() is None
    use_float32_products.cache_clear()
