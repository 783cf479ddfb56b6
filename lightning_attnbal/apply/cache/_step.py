"""One training step with a cached prefix."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from lightning_attnbal.apply.cache._pass import Pass
from lightning_attnbal.apply.cache._reasons import NotCacheableError
from lightning_attnbal.apply.cache._trace import Reads


@dataclass
class Step:
    """Figures of one training step, and the passes that its gradients tell something about.

    Args:
        reads: what follows results through the step; None if nothing does.
        may_run_twice: whether the host may be run a second time to compare what it returns.

    Attributes:
        rows: samples that went through the host.
        computed: those that were run.
        probes: passes with watched results.
        done: by the keys of their rows, passes of this step, for recomputation in the backward.
        keys: by call of the host, of its samples.
        is_spoilt: whether the loss came out as NaN on read rows.
    """

    reads: Reads | None = None
    may_run_twice: bool = True
    rows: int = 0
    computed: int = 0
    probes: list[Pass] = field(default_factory=list)
    done: dict[tuple[bytes, ...], Pass] = field(default_factory=dict)
    keys: list[tuple[bytes, ...]] = field(default_factory=list)
    is_spoilt: bool = False

    def check_loss(self, loss: Tensor) -> None:
        """See whether something read what was left out.

        Raises:
            NotCacheableError: the loss is NaN, and rows were read.
        """
        self.is_spoilt = self.computed < self.rows and bool(loss.detach().isnan().any())
        if self.is_spoilt:
            msg = "on read rows the loss is NaN: it reads what the prefix computed on its way"
            raise NotCacheableError(msg)
