"""Loop and Scan of onnx.reference put right.

Its Loop takes an absent condition for False and joins collected matrices by their rows; its Scan knows axis 0 and one
direction only; neither collects over no iteration. Source: the operators' specifications, from opset 9 on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import TypeProto, helper
from onnx.reference.op_run import OpRun

from graphopt.verification.values import Array

_SCAN_SINCE = 9  # before, a Scan had batches


class _Body(OpRun):
    """An operator that runs its body again and again."""

    op_domain = ""
    body: Any
    _run_body: Any

    def need_context(self) -> bool:
        """The body may read tensors of the graphs around it."""
        return True

    def _iteration(self, context: dict[str, Any] | None, given: Sequence[Any], bindings: Any) -> list[Any]:
        named = dict(zip(self.body.input_names, given, strict=True))
        found: list[Any] = self._run_body({**(context or {}), **named}, bindings=bindings)
        return found

    def _joined(self, values: list[Array], output: int, axis: int = 0) -> Array:
        """The values of all iterations along a new axis."""
        if values:
            return np.stack(values, axis=axis if axis >= 0 else axis + values[0].ndim + 1)
        return _nothing(self.body.output_types[output], axis)


def _nothing(declared: TypeProto, axis: int) -> Array:
    """What no iteration collects: 0 of what the body's output is declared to be. Raises ValueError if it is not."""
    kind = declared.tensor_type
    dims = kind.shape.dim
    if not kind.elem_type or not kind.HasField("shape") or not all(dim.HasField("dim_value") for dim in dims):
        raise ValueError("no iteration was made, and the shape of what one would have collected is not declared")
    shape = [dim.dim_value for dim in dims]
    shape.insert(axis if axis >= 0 else axis + len(shape) + 1, 0)
    return np.zeros(shape, helper.tensor_dtype_to_np_dtype(kind.elem_type))


class Loop(_Body):
    """Runs until the condition or the number of iterations ends it; either may be absent."""

    def _run(
        self,
        count: Array | None = None,
        condition: Array | None = None,
        *carried: Any,
        context: dict[str, Any] | None = None,
        body: Any = None,
        attributes: Any = None,
        bindings: Any = None,
    ) -> tuple[Any, ...]:
        values, number = list(carried), 0
        collected: list[list[Array]] = [[] for _ in self.body.output_names[1 + len(values) :]]
        goes_on = True if condition is None else bool(condition)
        while goes_on and (count is None or number < count.item()):
            given = [np.array(number, np.int64), np.array(goes_on), *values]
            again, *found = self._iteration(context, given, bindings)
            goes_on, values = bool(again), found[: len(values)]
            for one, value in zip(collected, found[len(values) :], strict=True):
                one.append(value)
            number += 1
        first = 1 + len(values)
        return (*values, *(self._joined(one, first + at) for at, one in enumerate(collected)))


class Scan(_Body):
    """Goes along the given axes of its scanned inputs, forwards or backwards."""

    def _run(
        self,
        *given: Any,
        context: dict[str, Any] | None = None,
        body: Any = None,
        num_scan_inputs: int = 0,
        scan_input_axes: Sequence[int] | None = None,
        scan_input_directions: Sequence[int] | None = None,
        scan_output_axes: Sequence[int] | None = None,
        scan_output_directions: Sequence[int] | None = None,
        attributes: Any = None,
        bindings: Any = None,
    ) -> tuple[Any, ...]:
        if self.run_params["opsets"][""] < _SCAN_SINCE:
            raise NotImplementedError("Scan before opset 9")
        state, scanned = list(given[:-num_scan_inputs]), given[-num_scan_inputs:]
        rows = [
            np.moveaxis(one, axis, 0) for one, axis in zip(scanned, scan_input_axes or [0] * len(scanned), strict=True)
        ]
        back = scan_input_directions or [0] * len(rows)
        rows = [one[::-1] if is_back else one for one, is_back in zip(rows, back, strict=True)]
        collected: list[list[Array]] = [[] for _ in self.body.output_names[len(state) :]]
        for number in range(len(rows[0])):
            found = self._iteration(context, [*state, *(one[number] for one in rows)], bindings)
            state = found[: len(state)]
            for one, value in zip(collected, found[len(state) :], strict=True):
                one.append(value)
        axes = scan_output_axes or [0] * len(collected)
        turned = scan_output_directions or [0] * len(collected)
        joined = [
            self._joined(one[::-1] if is_back else one, len(state) + at, axis)
            for at, (one, axis, is_back) in enumerate(zip(collected, axes, turned, strict=True))
        ]
        return (*state, *joined)


LOOPS: list[type[OpRun]] = [Loop, Scan]
