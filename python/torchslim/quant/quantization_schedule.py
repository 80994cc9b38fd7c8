# SPDX-License-Identifier: BSD-3-Clause
"""When quantisers observe and round and batch norms hold, by the number of steps taken."""

from __future__ import annotations

from torchslim import _C
from torchslim.quant.prepared_model import (
    PreparedModel,
    batch_norms,
    disable_fake_quant,
    disable_observer,
    enable_fake_quant,
    enable_observer,
    freeze_batch_norm,
)

_State = tuple[bool, bool, bool]


class QuantizationSchedule:
    """Switches the observers, the quantisers and the batch norms of a prepared model by the number of steps taken.

    Call `step()` after each optimiser step (or epoch: the unit is yours). The switches are set at once, and then only
    when one changes, so that calls of `disable_observer` and the like in between hold until the next change.

    Args:
        model: of `prepare`.
        observe_from: from here on, training forwards move the ranges.
        quantize_from: from here on, forwards round. Not before `observe_from`.
        freeze_observers_at: from here on, ranges stay as they are; after `observe_from`. None: never.
        freeze_batch_norm_at: from here on, the statistics of batch norms stay as they are. None: never.

    Raises:
        TypeError: `model` is not a prepared model.
        ValueError: a number below 0, or an order that makes no sense.

    Example:
        >>> schedule = QuantizationSchedule(prepared, quantize_from=100, freeze_observers_at=900)
        >>> for images, labels in loader:
        ...     train_step(images, labels)
        ...     schedule.step()
    """

    def __init__(
        self,
        model: PreparedModel,
        *,
        observe_from: int = 0,
        quantize_from: int = 0,
        freeze_observers_at: int | None = None,
        freeze_batch_norm_at: int | None = None,
    ) -> None:
        """Checks the arguments and sets the switches of step 0."""
        if not isinstance(model, PreparedModel):
            raise TypeError(
                f"torchslim.quant.QuantizationSchedule: expected a prepared model, got {type(model).__name__}; "
                "call torchslim.quant.prepare first"
            )
        self._model = model
        self._options = (observe_from, quantize_from, freeze_observers_at, freeze_batch_norm_at)
        self._step = 0
        self._apply(None)

    def step(self) -> None:
        """Counts a step, and switches what changes."""
        before = self._state()
        self._step += 1
        self._apply(before)

    def state_dict(self) -> dict[str, int]:
        """Returns how many steps were counted, as `step`."""
        return {"step": self._step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on from there, with its switches.

        Raises:
            ValueError: no number of steps is in `state`.
        """
        step = state.get("step")
        if not isinstance(step, int) or step < 0:
            raise ValueError(
                f"torchslim.quant.QuantizationSchedule: expected a state with a number of steps, `step`, got {state}"
            )
        self._step = step
        self._apply(None)

    def _state(self) -> _State:
        state: _State = _C.quant.schedule_state(self._step, *self._options)
        return state

    def _apply(self, before: _State | None) -> None:
        observes, rounds, freezes = self._state()
        if before is None or before[0] != observes:
            (enable_observer if observes else disable_observer)(self._model)
        if before is None or before[1] != rounds:
            (enable_fake_quant if rounds else disable_fake_quant)(self._model)
        if (before is None or before[2] != freezes) and any(True for _ in batch_norms(self._model)):
            freeze_batch_norm(self._model, freezes)
