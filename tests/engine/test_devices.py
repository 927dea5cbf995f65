"""Number formats of devices; memory layout and number of threads on the CPU."""

import pytest
import torch

from invokeclone.engine import devices


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("places", "device", "threads"),
    [(10, "cpu", 1), (10_000_000, "cpu", 2), (10, "cuda", 2), (10, "mps", 2)],
    ids=["small", "large", "cuda", "mps"],
)
@pytest.mark.usefixtures("two_threads")
def test_small_cpu_workloads_use_one_thread(places, device, threads):
    model = torch.nn.Linear(100, 100)
    with devices.limit_threads(model, places, device):
        assert torch.get_num_threads() == threads
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("two_threads")
def test_thread_count_is_restored_after_an_error():
    with pytest.raises(ValueError, match="broken"), devices.limit_threads(torch.nn.Linear(1, 1), 1, "cpu"):
        raise ValueError("broken")
    assert torch.get_num_threads() == 2


def test_channels_last_on_cpu_preserves_results():
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(4, 8, 3)
    pixels = torch.randn(2, 4, 9, 9)
    with torch.inference_mode():
        expected = layer(pixels)
        changed = devices.to_memory_format(layer, "cpu")
        assert changed.weight.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(changed(pixels), expected)


def test_other_devices_keep_the_default_memory_format():
    assert devices.to_memory_format(torch.nn.Conv2d(4, 8, 3), "cuda").weight.is_contiguous()


@pytest.mark.parametrize("precision", ["auto", "float16", "bfloat16", "float32"])
def test_cpu_always_computes_in_float32(precision: devices.Precision):
    assert devices.choose_dtype("cpu", precision) == torch.float32
    assert devices.choose_precision("cpu", precision) == "float32"


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [
        ("auto", torch.float16),
        ("float16", torch.float16),
        ("bfloat16", torch.bfloat16),
        ("float32", torch.float32),
    ],
)
def test_other_devices_use_the_precision_setting(
    precision: devices.Precision, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    for device in ("cuda", "cuda:1", "xpu", "mps"):
        assert devices.choose_dtype(device, precision) == dtype


@pytest.mark.parametrize("name", ["NVIDIA GeForce GTX 1660 SUPER", "GeForce GTX 1650"])
def test_cards_that_compute_nan_in_half_precision_compute_in_float32(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: name)
    assert devices.choose_dtype("cuda", "float16") == torch.float32


@pytest.mark.parametrize("precision", ["auto", "float16", "bfloat16", "float32"])
def test_the_cpu_computes_in_bfloat16_for_networks_that_overflow_in_float16(precision: devices.Precision):
    assert devices.choose_bfloat16_dtype("cpu", precision) == torch.bfloat16


@pytest.mark.parametrize(
    ("precision", "supported", "dtype"),
    [
        ("auto", True, torch.bfloat16),
        ("float16", True, torch.bfloat16),
        ("float32", True, torch.float32),
        ("auto", False, torch.float16),
        ("float32", False, torch.float32),
    ],
)
def test_bfloat16_replaces_float16_where_a_gpu_has_it(
    precision: devices.Precision, supported: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: supported)
    assert devices.choose_bfloat16_dtype("cuda", precision) == dtype
