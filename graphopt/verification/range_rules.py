"""What each operator needs of its inputs: one rule an operator, from the ONNX operator specification."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import onnx

from graphopt.verification.ranges import ANY, NodeView, Range, indices_into

Needs: TypeAlias = Iterable[tuple[int, Range]]
Rule: TypeAlias = Callable[[NodeView], Needs]

MASK = Range(0, 1)
POSITIVE = Range(0.05, 2)
SHAPE = Range(1, 3)
LENGTH = Range(1, 8)

# Inputs whose own meaning limits them, by operator and slot.
FIXED: dict[str, dict[int, Range]] = {
    "Acos": {0: Range(-0.95, 0.95)},
    "Acosh": {0: Range(1.05, 4)},
    "Asin": {0: Range(-0.95, 0.95)},
    "Atanh": {0: Range(-0.95, 0.95)},
    "BatchNormalization": {4: POSITIVE},
    "Bernoulli": {0: Range(0, 1)},
    "BitShift": {1: Range(0, 3)},
    "BlackmanWindow": {0: LENGTH},
    "ConstantOfShape": {0: SHAPE},
    "CumSum": {1: Range(0, 0)},
    "DequantizeLinear": {1: Range(0.01, 0.1)},
    "Dropout": {1: Range(0, 0.5)},
    "Expand": {1: SHAPE},
    "HammingWindow": {0: LENGTH},
    "HannWindow": {0: LENGTH},
    "Log": {0: POSITIVE},
    "Loop": {0: Range(1, 3)},
    "OneHot": {1: Range(2, 8)},
    "Pad": {1: Range(0, 1)},
    "QLinearConv": {1: Range(0.01, 0.1), 4: Range(0.01, 0.1), 6: Range(0.01, 0.1)},
    "QLinearMatMul": {1: Range(0.01, 0.1), 4: Range(0.01, 0.1), 6: Range(0.01, 0.1)},
    "QuantizeLinear": {1: Range(0.01, 0.1)},
    "Range": {0: Range(0, 0), 1: Range(3, 6), 2: Range(1, 1)},
    "ReduceLogSum": {0: POSITIVE},
    "Reshape": {1: Range(is_target=True)},
    "Resize": {2: Range(1, 2), 3: Range(1, 16)},
    "SequenceAt": {1: Range(0, 0)},
    "SequenceErase": {1: Range(0, 0)},
    "SequenceInsert": {2: Range(0, 0)},
    "Slice": {1: Range(0, 1), 2: Range(2, 4), 3: Range(0, 0), 4: Range(1, 1)},
    "Split": {1: SHAPE},
    "Sqrt": {0: Range(0, 4)},
    "Squeeze": {1: Range(0, 0)},
    "Tile": {1: Range(1, 2)},
    "Trilu": {1: Range(-1, 1)},
    "Unsqueeze": {1: Range(0, 0)},
    "Upsample": {1: Range(1, 2)},
}

# Operators whose output has elements of these inputs only: what is needed of the one is needed of the others.
MOVES: dict[str, tuple[int, ...]] = {
    "Compress": (0,),
    "DepthToSpace": (0,),
    "Dropout": (0,),
    "Expand": (0,),
    "Flatten": (0,),
    "Identity": (0,),
    "Pad": (0,),
    "ReduceMax": (0,),
    "ReduceMin": (0,),
    "Reshape": (0,),
    "ReverseSequence": (0,),
    "Slice": (0,),
    "SpaceToDepth": (0,),
    "Split": (0,),
    "Squeeze": (0,),
    "Tile": (0,),
    "TopK": (0,),
    "Transpose": (0,),
    "Trilu": (0,),
    "Unsqueeze": (0,),
    "Where": (1, 2),
}


def _moves(view: NodeView) -> Needs:
    for output in range(len(view.node.output)):
        if view.node.op_type == "TopK" and output == 1:
            continue
        for slot in MOVES[view.node.op_type]:
            yield slot, view.need(output)


def _all_inputs(view: NodeView) -> Needs:
    return [(slot, view.need()) for slot in range(len(view.node.input))]


def _cast(view: NodeView) -> Needs:
    to_bool = view.attribute("to") == onnx.TensorProto.BOOL
    return [(0, MASK if to_bool else view.need())]


def _add(view: NodeView) -> Needs:
    for slot, other in ((0, 1), (1, 0)):
        constant = view.scalar(other)
        if constant is not None:
            yield slot, view.need().plus(-constant)


def _sub(view: NodeView) -> Needs:
    taken = view.scalar(1)
    if taken is not None:
        yield 0, view.need().plus(taken)
    whole = view.scalar(0)
    if whole == 1:
        yield 1, MASK  # 1 - mask, the usual start of an attention bias
    elif whole is not None:
        yield 1, view.need().plus(-whole).times(-1)


def _mul(view: NodeView) -> Needs:
    for slot, other in ((0, 1), (1, 0)):
        factor = view.scalar(other)
        if factor is None or factor == 0:
            continue
        if abs(factor) >= 1e3:
            yield slot, MASK  # mask * -1e9, an attention bias
        else:
            yield slot, view.need().times(1 / factor)


def _div(view: NodeView) -> Needs:
    divisor = view.scalar(1)
    if divisor is None:
        yield 1, Range(0.5, 3)  # away from 0; an integer one is at least 1
    elif divisor != 0:
        yield 0, view.need().times(divisor)


def _pow(view: NodeView) -> Needs:
    exponent = view.scalar(1)
    if exponent is None:
        yield 1, Range(0, 2)
    if exponent is None or exponent != round(exponent) or exponent < 0:
        yield 0, POSITIVE


def _gather(view: NodeView) -> Needs:
    yield 0, view.need()
    dims = view.dims(0)
    axis = view.attribute("axis", 0)
    if dims is None:
        yield 1, Range(0, 0)
    elif -len(dims) <= axis < len(dims):
        yield 1, indices_into([dims[axis]])


def _gather_nd(view: NodeView) -> Needs:
    yield 0, view.need()
    yield 1, _nd_indices(view, view.attribute("batch_dims", 0))


def _scatter(view: NodeView) -> Needs:
    yield 0, view.need()
    dims = view.dims(0)
    axis = view.attribute("axis", 0)
    if dims is not None and -len(dims) <= axis < len(dims):
        yield 1, indices_into([dims[axis]])
    yield 2, view.need()


def _scatter_nd(view: NodeView) -> Needs:
    return [(0, view.need()), (1, _nd_indices(view, 0)), (2, view.need())]


def _nd_indices(view: NodeView, batch: int) -> Range:
    data, indices = view.dims(0), view.dims(1)
    if data is None:
        return Range(0, 0)
    depth = indices[-1] if indices else None
    return indices_into(data[batch : batch + depth] if isinstance(depth, int) else data[batch:])


def _one_hot(view: NodeView) -> Needs:
    yield from FIXED["OneHot"].items()
    depth = view.scalar(1)
    yield 0, Range(0, (depth or 2) - 1)


def _top_k(view: NodeView) -> Needs:
    yield from _moves(view)
    dims = view.dims(0)
    axis = view.attribute("axis", -1)
    if dims is not None and -len(dims) <= axis < len(dims):
        largest = dims[axis]
        yield 1, Range(1, min(largest, 5) if isinstance(largest, int) else 1)


def _recurrent(view: NodeView) -> Needs:
    return [(4, _lengths(view.dims(0), 1 if view.attribute("layout", 0) else 0))]


def _reverse_sequence(view: NodeView) -> Needs:
    return [(0, view.need()), (1, _lengths(view.dims(0), view.attribute("time_axis", 0)))]


def _lengths(dims: list[int | str | None] | None, axis: int) -> Range:
    size = dims[axis] if dims is not None and axis < len(dims) else None
    return Range(1, size if isinstance(size, int) else 1, (size,) if isinstance(size, str) else ())


def _embed_layer_norm(view: NodeView) -> Needs:
    """com.microsoft: words and segments look up the tables in inputs 2 and 4."""
    for slot, table in ((0, 2), (1, 4)):
        dims = view.dims(table)
        if dims:
            yield slot, indices_into(dims[:1])


def _clip(view: NodeView) -> Needs:
    return [(0, ANY)]  # whatever comes in, what comes out is clipped


def _reduce_axes(view: NodeView) -> Needs:
    yield 1, Range(0, 0)
    if view.node.op_type in MOVES:
        yield 0, view.need()


def _roi_align(view: NodeView) -> Needs:
    dims = view.dims(0)
    yield 1, Range(0, 4)
    yield 2, indices_into(dims[:1]) if dims else Range(0, 0)


def _neg(view: NodeView) -> Needs:
    return [(0, view.need().times(-1))]


def _fixed_and_moves(view: NodeView) -> Needs:
    yield from FIXED.get(view.node.op_type, {}).items()
    if view.node.op_type in MOVES:
        yield from _moves(view)


def _mod(view: NodeView) -> Needs:
    return [(1, Range(1, 5))] if view.scalar(1) is None else []


RULES: dict[str, Rule] = {
    **dict.fromkeys((*FIXED, *MOVES), _fixed_and_moves),
    **dict.fromkeys(("Concat", "Max", "Min", "SequenceConstruct"), _all_inputs),
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _recurrent),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ReduceMean", "ReduceProd", "ReduceSum", "ReduceL2"), _reduce_axes),
    "Add": _add,
    "Cast": _cast,
    "Clip": _clip,
    "Div": _div,
    "EmbedLayerNormalization": _embed_layer_norm,
    "Gather": _gather,
    "GatherElements": _gather,
    "GatherND": _gather_nd,
    "Mod": _mod,
    "Mul": _mul,
    "Neg": _neg,
    "OneHot": _one_hot,
    "Pow": _pow,
    "ReverseSequence": _reverse_sequence,
    "RoiAlign": _roi_align,
    "Scatter": _scatter,
    "ScatterElements": _scatter,
    "ScatterND": _scatter_nd,
    "Sub": _sub,
    "TopK": _top_k,
}
