"""Before a run: what each budget would buy, and where it is forecast to end. No Trainer."""

from lightning_attnbal.planning._forecast_plans import forecast_plans
from lightning_attnbal.planning._outlook import BudgetOutlook, PlanPoint
from lightning_attnbal.planning._plot import plot_outlook
from lightning_attnbal.planning._report import PlanReport

__all__ = ["BudgetOutlook", "PlanPoint", "PlanReport", "forecast_plans", "plot_outlook"]
