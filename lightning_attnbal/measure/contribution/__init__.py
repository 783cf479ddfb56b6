"""What training a unit is worth: loss decrease, debiased, and the measures it is compared with."""

from lightning_attnbal.measure.contribution._activation_meters import (
    ActivationChangeMeter,
    PlasticityMeter,
)
from lightning_attnbal.measure.contribution._activations import (
    activation_change,
    output_entropy,
    plasticity,
)
from lightning_attnbal.measure.contribution._direction import (
    Geometry,
    JointDirection,
    geometry,
    joint_directions,
    momentum_gain,
    update_direction,
)
from lightning_attnbal.measure.contribution._estimate import Contribution
from lightning_attnbal.measure.contribution._first_order import (
    cross_decrease,
    debiased_decrease,
    gradient_update,
)
from lightning_attnbal.measure.contribution._gradient_meters import (
    FisherMeter,
    GradientNormMeter,
    RelativeGradientChangeMeter,
)
from lightning_attnbal.measure.contribution._gradients import (
    NormOrder,
    fisher_trace,
    gradient_norm,
    relative_gradient_change,
)
from lightning_attnbal.measure.contribution._meter import ContributionMeter, Reduction
from lightning_attnbal.measure.contribution._probe import probe_contributions
from lightning_attnbal.measure.contribution._step_meters import (
    CrossBatchMeter,
    GradientUpdateMeter,
)
from lightning_attnbal.measure.contribution._untouched import untouched

__all__ = [
    "ActivationChangeMeter",
    "Contribution",
    "ContributionMeter",
    "CrossBatchMeter",
    "FisherMeter",
    "Geometry",
    "GradientNormMeter",
    "GradientUpdateMeter",
    "JointDirection",
    "NormOrder",
    "PlasticityMeter",
    "Reduction",
    "RelativeGradientChangeMeter",
    "activation_change",
    "cross_decrease",
    "debiased_decrease",
    "fisher_trace",
    "geometry",
    "gradient_norm",
    "gradient_update",
    "joint_directions",
    "momentum_gain",
    "output_entropy",
    "plasticity",
    "probe_contributions",
    "relative_gradient_change",
    "untouched",
    "update_direction",
]
