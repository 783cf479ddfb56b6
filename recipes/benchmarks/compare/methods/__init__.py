"""The peers' methods, written from their papers or called through their packages."""

from recipes.benchmarks.compare.methods._autofreeze import AutoFreeze
from recipes.benchmarks.compare.methods._badam import BAdam
from recipes.benchmarks.compare.methods._dropbp import DropBP
from recipes.benchmarks.compare.methods._freezeout import FreezeOut
from recipes.benchmarks.compare.methods._greentrainer import GreenTrainer
from recipes.benchmarks.compare.methods._lisa import LISA
from recipes.benchmarks.compare.methods._lora import Lora
from recipes.benchmarks.compare.methods._method import Method
from recipes.benchmarks.compare.methods._static import LPFT, Full, LastK, LinearProbe
from recipes.benchmarks.compare.methods._thaw import ScheduledThaw

__all__ = [
    "LISA",
    "LPFT",
    "AutoFreeze",
    "BAdam",
    "DropBP",
    "FreezeOut",
    "Full",
    "GreenTrainer",
    "LastK",
    "LinearProbe",
    "Lora",
    "Method",
    "ScheduledThaw",
]
