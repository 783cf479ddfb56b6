"""One entry for every public allocator, meter and applier; a test fails if one is missing here."""

from collections.abc import Callable, Sequence

from torch import nn

from lightning_attnbal.allocate import (
    Allocator,
    BanditAllocator,
    ForecastAllocator,
    FrontierAllocator,
    FullAllocator,
    LastKAllocator,
    RandomAllocator,
    UniformAllocator,
)
from lightning_attnbal.apply import ActivationStore, FixedViews, PlanApplier, PrefixCache
from lightning_attnbal.core import Unit
from lightning_attnbal.measure import (
    ActivationChangeMeter,
    AttentionMeter,
    CrossBatchMeter,
    FisherMeter,
    GradientNormMeter,
    GradientUpdateMeter,
    PlasticityMeter,
    RelativeGradientChangeMeter,
    UnitTracer,
)
from lightning_attnbal.multitask import (
    BanditShares,
    Bounded,
    GradNormShares,
    Proportional,
    RoundRobin,
    ShareRule,
    Stopping,
    Temperature,
    Uncertainty,
    Uniform,
)

ALLOCATORS: dict[type[Allocator], Callable[[], Allocator]] = {
    BanditAllocator: BanditAllocator,
    ForecastAllocator: ForecastAllocator,
    FrontierAllocator: FrontierAllocator,
    FullAllocator: FullAllocator,
    LastKAllocator: lambda: LastKAllocator(1),
    RandomAllocator: lambda: RandomAllocator(seed=1),
    UniformAllocator: UniformAllocator,
}

METERS: dict[type, Callable[[nn.Module, Sequence[Unit]], object]] = {
    ActivationChangeMeter: lambda model, units: ActivationChangeMeter(units),
    AttentionMeter: lambda model, units: AttentionMeter(model),
    CrossBatchMeter: CrossBatchMeter,
    FisherMeter: FisherMeter,
    GradientNormMeter: GradientNormMeter,
    GradientUpdateMeter: GradientUpdateMeter,
    PlasticityMeter: lambda model, units: PlasticityMeter(units),
    RelativeGradientChangeMeter: lambda m, u: RelativeGradientChangeMeter(m, u, interval=2),
    UnitTracer: UnitTracer,
}

APPLIERS: dict[type, Callable[[nn.Module, Sequence[Unit]], PlanApplier]] = {
    PlanApplier: PlanApplier,
}

RULES: dict[type[ShareRule], Callable[[], ShareRule]] = {
    BanditShares: BanditShares,
    Bounded: lambda: Bounded(rule=Uniform(), caps={"small": 0.5}),
    GradNormShares: GradNormShares,
    Proportional: Proportional,
    RoundRobin: RoundRobin,
    Stopping: lambda: Stopping(rule=Uniform()),
    Temperature: lambda: Temperature(tau=2.0),
    Uncertainty: Uncertainty,
    Uniform: Uniform,
}

CACHES: dict[type, Callable[[nn.Module, Sequence[Unit]], object]] = {
    ActivationStore: lambda model, units: ActivationStore(ram="1MiB"),
    FixedViews: lambda model, units: FixedViews(list(units), num_views=2),
    PrefixCache: lambda model, units: PrefixCache(model, units, ActivationStore(ram="1MiB")),
}
