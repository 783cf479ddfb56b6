"""One fit, from its first batch to its end: decides, applies, paces, records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl

from lightning_attnbal.callbacks._decision import Decision
from lightning_attnbal.callbacks._losses import logged_loss
from lightning_attnbal.callbacks._pace import Pace
from lightning_attnbal.callbacks._probes import Probes
from lightning_attnbal.callbacks._recording import RunRecord
from lightning_attnbal.callbacks._replay import EPOCH_END
from lightning_attnbal.callbacks._run import Run
from lightning_attnbal.callbacks._stopwatch import PROBES, Stopwatch
from lightning_attnbal.callbacks._watch import Watch
from lightning_attnbal.trainer import PlanRate


class Fit:
    """What the hooks of a balanced fit do, one method each.

    Args:
        trainer: of the fit.
        run: what is balanced.
        pace: moves the learning rate with the budget spent.
        probes: look at what is frozen.
        record: where events go.
        stopwatch: runs since the fit was set up.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        run: Run,
        *,
        pace: Pace,
        probes: Probes,
        record: RunRecord,
        stopwatch: Stopwatch,
    ) -> None:
        self.run, self.record = run, record
        self._trainer, self._pace, self._probes = trainer, pace, probes
        self._stopwatch = stopwatch
        self._rate = PlanRate(trainer.optimizers)
        self._watch = Watch(trainer, run, record, stopwatch)
        self._global_step = trainer.global_step
        self._epoch = 0

    def begin(self, *, seed: int, note: str = "") -> None:
        """Open the stream, unless it goes on; take the learning rate to where the budget is."""
        is_new = not self.record.events
        self.record.start(self.run, seed=seed, device=str(self._trainer.lightning_module.device))
        if note and is_new:
            self.record.noted(self.run, note)
        self.record.show()
        self._advance()
        self._trainer.should_stop = self._trainer.should_stop or bool(self.run.finished)

    # -- a batch -----------------------------------------------------------------------------

    def begin_batch(self, batch: Any, batch_idx: int) -> None:
        """A batch starts; an epoch that ended meanwhile is decided on first."""
        if self.run.ended_epoch is not None:
            self.end_epoch(self.run.ended_epoch)
            self.run.begin_epoch()
        self._probes.see(batch, batch_idx, self._trainer.num_training_batches)
        repeated = self.run.repeat(self._trainer.current_epoch)
        if repeated is not None:
            self._announce(repeated)
            self._advance()
        self.run.begin_batch(batch)
        self._watch.begin_batch()

    def end_forward(self, loss: Any) -> None:
        """The loss of a batch is known."""
        self._watch.end_forward()
        self.run.end_forward(loss)

    def end_backward(self) -> None:
        """The gradients of a batch are there."""
        self._watch.end_backward()
        self.run.session.end_backward()

    def before_step(self) -> None:
        """An optimizer step is about to be taken."""
        self._rate.begin(self.run.lr_factor)
        self.run.before_step()

    def end_batch(self, outputs: Any) -> None:
        """A batch is over, with or without a step."""
        trainer = self._trainer
        self._watch.end_batch()
        stepped = trainer.global_step > self._global_step
        self._global_step, self._epoch = trainer.global_step, trainer.current_epoch
        loss = logged_loss(outputs, trainer.accumulate_grad_batches)
        decision = self.run.end_batch(stepped=stepped, epoch=self._epoch, loss=loss)
        self._rate.end()
        self._advance()
        self._announce(decision)
        self._log()
        if self.run.finished:
            trainer.should_stop = True
        if trainer.is_last_batch:
            with self._stopwatch.during(PROBES):
                self._probes.run(trainer, trainer.lightning_module, self.run)
            self.run.ended_epoch = self._epoch
        self.record.show()

    # -- an epoch, a validation, the end -----------------------------------------------------

    def end_validation(self) -> None:
        """Scores are in."""
        self.run.see_scores(self._watch.end_validation())
        self.record.show()

    def end_epoch(self, epoch: int) -> None:
        """Decide anew, if there is something left to decide on."""
        self.run.ended_epoch = None
        self.record.cached(self.run, epoch=epoch)
        self._watch.end_epoch(epoch)
        if self.run.goes_on:
            self._announce(self.run.decide(epoch, EPOCH_END))
            self._advance()
        self.record.show()

    def end(self, seconds: float) -> None:
        """The fit is over, after so much time."""
        self._watch.end()
        self.run.ledger.seconds = seconds
        self.record.end(self.run, epoch=self._epoch, learning_rate=self._learning_rate())
        self.record.show()

    def close(self) -> None:
        """Leave no trace on the optimizers; what users read stays. Safe to call twice."""
        self._rate.close()
        self._pace.release()
        self._watch.close()
        self.record.close()

    # -- checkpoints -------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain data for a checkpoint."""
        return {name: part.state_dict() for name, part in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])

    def _parts(self) -> dict[str, Any]:
        return {
            "run": self.run,
            "pace": self._pace,
            "record": self.record,
            "probes": self._probes,
            "watch": self._watch,
        }

    # -- what is said ------------------------------------------------------------------------

    def _advance(self) -> None:
        self._pace.advance(self.run.progress, self.run.step_share)

    def _announce(self, decision: Decision | None) -> None:
        """Record a decision, if there is one, and say it where something changed."""
        if decision is not None:
            self.record.decided(self.run)
            self._watch.decided()

    def _log(self) -> None:
        """Progress bar, loggers and the event stream, as often as the user has loggers write."""
        every = max(1, int(getattr(self._trainer, "log_every_n_steps", 1)))
        if self.run.num_steps % every and not self.run.finished:
            return
        self._watch.show()
        self.record.spent(self.run, epoch=self._epoch, learning_rate=self._learning_rate())

    def _learning_rate(self) -> float:
        """Of the first param group, with the plan's factor."""
        return float(self._trainer.optimizers[0].param_groups[0]["lr"]) * self.run.lr_factor
