"""Every dtype comes back as the encoding says."""

import pytest
import torch

from lightning_attnbal.apply.cache._store import ActivationStore
from tests.unit.apply.cache.stored import fetch, key

PLACES = {"ram": {"ram": "4MiB"}, "disk": {"ram": 0, "disk": "4MiB"}}
DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.complex64, torch.complex128, torch.uint16),
]


@pytest.fixture(params=PLACES.values(), ids=PLACES)
def place(request):
    return request.param


def anything(dtype, *shape):
    """Arbitrary bits, of which NaN payloads and infinities are some."""
    if dtype is torch.bool:
        return torch.randint(0, 2, shape).bool()
    size = torch.Size(shape).numel() * dtype.itemsize
    return torch.randint(0, 256, (size,), dtype=torch.uint8).view(dtype).view(shape)


def bits(tensor):
    return tensor.contiguous().view(-1).view(torch.uint8)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_exact_keeps_every_bit(dtype, place):
    with ActivationStore(**place) as store:
        space = store.space("cut")
        given = [anything(dtype, 3, 5), anything(dtype, 7)]
        assert space.put([key(1)], [given]) == 1
        kept = fetch(space, key(1), [dtype, dtype])
        assert all(torch.equal(bits(a), bits(b)) for a, b in zip(kept, given, strict=True))
        assert store.stats.error == 0


@pytest.mark.parametrize("encoding", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_floats_are_narrowed_as_torch_does_and_never_widened(encoding, dtype, place):
    target = getattr(torch, encoding)
    given = torch.randn(4, 9).to(dtype)
    with ActivationStore(**place, dtype=encoding) as store:
        space = store.space("cut")
        space.put([key(1)], [[given, torch.arange(9)]])
        kept, integers = fetch(space, key(1), [torch.float64, torch.int64])
        narrower = target if target.itemsize < dtype.itemsize else dtype
        torch.testing.assert_close(kept, given.to(narrower).double(), rtol=0, atol=0)
        assert integers.tolist() == list(range(9))
        error = (kept - given.double()).abs().max() / given.double().abs().max()
        assert store.stats.error == pytest.approx(float(error))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_int8_is_within_half_a_step_of_each_vector(dtype, place):
    given = (torch.randn(6, 32) * torch.logspace(-6, 6, 6)[:, None]).to(dtype)
    given[3] = 0
    with ActivationStore(**place, dtype="int8") as store:
        space = store.space("cut")
        space.put([key(1)], [[given]])
        (kept,) = fetch(space, key(1), [torch.float32])
        step = given.double().abs().amax(-1, keepdim=True) / 127
        assert ((kept - given.double()).abs() <= 0.501 * step).all()
        assert 0 < store.stats.error <= 0.501 / 127
        assert store.stats.bytes_written < 6 * 32 * 2


@pytest.mark.parametrize("encoding", ["float32", "bfloat16", "float16", "int8"])
@pytest.mark.parametrize("value", [1e300, -1e300, torch.inf, torch.nan], ids=str)
def test_a_row_beyond_the_range_is_stored_exactly(encoding, value, place):
    given = torch.randn(4, 8, dtype=torch.float64)
    given[2, 3] = value
    with ActivationStore(**place, dtype=encoding) as store:
        space = store.space("cut")
        space.put([key(1), key(2)], [[given], [given[:2]]])
        (kept,) = fetch(space, key(1), [torch.float64])
        assert torch.equal(bits(kept), bits(given))
        assert (fetch(space, key(2), [torch.float64])[0] != given[:2]).any()


def test_float16_keeps_its_largest_number_and_not_the_next():
    given = torch.tensor([65504.0, -65504.0, 65505.0])
    with ActivationStore(ram="1MiB", dtype="float16") as store:
        space = store.space("cut")
        space.put([key(1), key(2)], [[given[:2]], [given]])
        assert fetch(space, key(2), [torch.float32])[0].tolist() == given.tolist()
        assert store.stats.bytes_written == 2 * 16


@pytest.mark.gpu
@pytest.mark.parametrize("encoding", ["exact", "float16", "int8"])
def test_rows_may_come_from_and_go_to_an_accelerator(encoding, place):
    device = torch.accelerator.current_accelerator()
    given = torch.randn(6, 32)
    with ActivationStore(**place, dtype=encoding) as store:
        space = store.space("cut")
        space.put([key(1)], [[given.to(device), torch.arange(6, device=device)]])
        out = [torch.zeros(8, 32, device=device)[1:7], torch.zeros(6, device=device).long()]
        assert space.read([key(1)], [out]) == []
        assert (out[0].cpu() - given).abs().max() <= (store.stats.error + 1e-7) * given.abs().max()
        assert out[1].tolist() == list(range(6))
