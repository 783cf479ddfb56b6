"""Before a run: what each budget would buy, and where it is forecast to end. No Trainer."""

from lightning_attnbal.planning._caching import caching_terms
from lightning_attnbal.planning._calibration import CALIBRATION_STEPS, calibration_steps
from lightning_attnbal.planning._diagnosis import diagnose_model
from lightning_attnbal.planning._finding import Finding, Verdict
from lightning_attnbal.planning._forecast_plans import forecast_plans
from lightning_attnbal.planning._outlook import BudgetOutlook, PlanPoint
from lightning_attnbal.planning._plot import plot_outlook
from lightning_attnbal.planning._report import PlanReport

__all__ = [
    "CALIBRATION_STEPS",
    "BudgetOutlook",
    "Finding",
    "PlanPoint",
    "PlanReport",
    "Verdict",
    "caching_terms",
    "calibration_steps",
    "diagnose_model",
    "forecast_plans",
    "plot_outlook",
]
