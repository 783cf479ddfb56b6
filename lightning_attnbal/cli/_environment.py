"""What is installed here, and what this machine can do."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from importlib import metadata

import torch

from lightning_attnbal.apply.cache import default_ram
from lightning_attnbal.core import Dimension, Quantity
from lightning_attnbal.planning import Finding, Verdict

_OPTIONAL = (
    ("transformers", "hf", "Hugging Face models by name or configuration"),
    ("timm", "vision", "image models"),
    ("torchvision", "vision", "image models and data sets"),
    ("matplotlib", "plot", "plot_plan and attnbal plan --plot"),
    ("altair", "report", "the HTML report and the loggers' figures"),
    ("vl-convert-python", "report", "the same, drawn without a browser"),
    ("jinja2", "report", "the HTML report's page"),
    ("wandb", "wandb", "Weights & Biases"),
    ("wandb-workspaces", "wandb", "attnbal wandb-dashboard"),
    ("tensorboard", "dev", "TensorBoard"),
    ("torchjd", "mtl", "loss balancing for several tasks"),
    ("hydra-core", "recipes", "the recipes"),
    ("ray", "ray", "clusters"),
)


def look_around() -> Iterator[Finding]:
    """Versions, optional packages, processor, accelerators and room for a cache."""
    for name in ("lightning-attnbal", "torch", "lightning"):
        yield Finding(Verdict.FINE, name, _version(name) or "runs from a source tree")
    system = f"{platform.system()} on {platform.machine()}"
    yield Finding(Verdict.FINE, "python", f"{platform.python_version()}, {system}")
    yield from map(_optional, *zip(*_OPTIONAL, strict=True))
    yield _processor()
    yield _threads()
    yield from _accelerators()
    yield from _room()


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _optional(package: str, extra: str, enables: str) -> Finding:
    version = _version(package)
    if version is not None:
        return Finding(Verdict.FINE, package, f"{version}: {enables}")
    text = f'not installed: {enables}. pip install "lightning-attnbal[{extra}]"'
    return Finding(Verdict.NOTE, package, text)


def _processor() -> Finding:
    vectors = torch.backends.cpu.get_cpu_capability()
    can = torch.cpu.get_capabilities()
    fast = [name for name in ("avx512_bf16", "amx_bf16") if can.get(name)]
    text = f"{can.get('cpu_name', platform.machine())}, {vectors} kernels"
    if fast:
        return Finding(Verdict.FINE, "CPU", f"{text}; fast bfloat16 ({', '.join(fast)})")
    return Finding(Verdict.NOTE, "CPU", f"{text}; bfloat16 is slow here: train in float32")


def _threads() -> Finding:
    threads, cores = torch.get_num_threads(), _cores()
    text = f"{threads} of torch for {cores} available cores"
    if threads <= cores:
        return Finding(Verdict.FINE, "threads", text)
    return Finding(Verdict.NOTE, "threads", f"{text}: set OMP_NUM_THREADS={cores}")


def _cores() -> int:
    """Those this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _accelerators() -> Iterator[Finding]:
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        memory = Quantity(float(found.total_memory), Dimension.BYTE)
        bfloat16 = "with" if found.major >= 8 else "without"
        yield Finding(Verdict.FINE, f"GPU {index}", f"{found.name}, {memory}, {bfloat16} bfloat16")
    if torch.backends.mps.is_available():
        yield Finding(Verdict.FINE, "GPU", "Apple's, through MPS")
    elif not torch.cuda.device_count():
        yield Finding(Verdict.NOTE, "GPU", "none; everything runs on the CPU")


def _room() -> Iterator[Finding]:
    ram = Quantity(float(default_ram()), Dimension.BYTE)
    yield Finding(Verdict.FINE, "cache in memory", f"{ram} by default, a quarter of what is free")
    folder = tempfile.gettempdir()
    disk = Quantity(float(shutil.disk_usage(folder).free), Dimension.BYTE)
    text = f"{disk} free in {folder}, used only with CacheSettings(disk=...)"
    yield Finding(Verdict.FINE, "cache on disk", text)
