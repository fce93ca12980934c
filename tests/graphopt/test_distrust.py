"""Where onnx infers a wrong shape, what is noted is what ONNX Runtime computes, or nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from onnx import ModelProto

from graphopt.graph import Shape, import_model
from graphopt.inference import infer_types
from graphopt.node_types import infer_node
from tests.support.models import model, run
from tests.support.rewrites import find

F = np.float32
POOLS = ("AveragePool", "LpPool", "MaxPool")


def noted(proto: ModelProto, name: str = "y") -> Shape | None:
    """The shape that inference of the model notes; that of the node alone must be the same."""
    graph = import_model(proto)
    infer_types(graph)
    node = find(graph, name)
    ((_, alone), *_) = infer_node(node, proto.opset_import[0].version, proto.ir_version)
    shape = node.result.shape
    assert [d for d in alone or () if isinstance(d, int)] == [d for d in shape or () if isinstance(d, int)]
    return shape


def pool(op: str, size: int, attributes: str, opset: int) -> ModelProto:
    text = f"g (float[1,1,{size}] x) => (float[A,B,C] z) {{ y = {op}<ceil_mode = 1, {attributes}>(x) z = Relu(y) }}"
    return model(text, opset=opset)


@pytest.mark.parametrize("op", POOLS)
@pytest.mark.parametrize("opset", [18, 22])
@pytest.mark.parametrize("size", [3, 4, 5, 6])
@pytest.mark.parametrize(
    "attributes",
    [
        "kernel_shape = [2], strides = [2], pads = [1, 1]",
        "kernel_shape = [3], strides = [2], pads = [1, 1]",
        "kernel_shape = [3], strides = [2]",
        "kernel_shape = [1], strides = [2]",
        "kernel_shape = [2], strides = [3], pads = [0, 1]",
    ],
)
def test_the_last_window_of_a_pool(op: str, opset: int, size: int, attributes: str) -> None:
    proto = pool(op, size, attributes, opset)
    (result,) = run(proto, {"x": np.zeros((1, 1, size), F)})
    assert noted(proto) == result.shape
    graph = import_model(proto)
    infer_types(graph)
    assert find(graph, "z").result.shape == result.shape


def test_pools_one_after_the_other() -> None:
    step = "MaxPool<ceil_mode = 1, kernel_shape = [1], strides = [2]>"
    text = f"g (float[1,1,8] x) => (float[A,B,C] y) {{ a = {step}(x) b = Relu(a) c = {step}(b) y = {step}(c) }}"
    proto = model(text, opset=17)
    (result,) = run(proto, {"x": np.zeros((1, 1, 8), F)})
    assert noted(proto) == result.shape == (1, 1, 1)


def test_a_pool_in_a_branch() -> None:
    proto = model(
        """g (float[1,1,4] x, bool c) => (float[A,B,C] y) { y = If(c) <
            then_branch = t () => (float[D,E,G] p) { p = MaxPool<ceil_mode = 1, kernel_shape = [1], strides = [2]>(x) },
            else_branch = e () => (float[H,I,J] q) { q = MaxPool<kernel_shape = [1], strides = [2]>(x) }> }""",
        opset=17,
    )
    graph = import_model(proto)
    infer_types(graph)
    assert find(graph, "y").result.shape == (1, 1, 2)


def test_more_wrong_pools_than_rounds() -> None:
    step = "MaxPool<ceil_mode = 1, kernel_shape = [2], strides = [1], pads = [0, 2]>"
    names = [f"p{i}" for i in range(12)]
    nodes = " ".join(f"{b} = {step}({a})" for a, b in zip(["x", *names], names, strict=False))
    graph = import_model(model(f"g (float[1,1,4] x) => (float[A,B,C] y) {{ {nodes} y = Relu(p11) }}", opset=17))
    infer_types(graph)
    shape = find(graph, "y").result.shape
    assert shape is None or not isinstance(shape[2], int) or shape[2] == 4 + 12


@pytest.mark.parametrize(
    ("shapes", "equation", "expected"),
    [
        ("float[1,3] x, float[2,3] z", "ij,ij->ij", (2, 3)),
        ("float[2,3] x, float[1,3] z", "ij,ij->ij", (2, 3)),
        ("float[5,1,3] x, float[5,2,3] z", "...i,...i->...i", (5, 2, 3)),
        ("float[1,3] x, float[2,3] z", "ij,ij", ()),
        ("float[N,3] x, float[N,4] z", "ni,nj->nij", ("N", 3, 4)),
        ("float[N,3] x, float[2,3] z", "ni,ni->ni", (2, 3)),
    ],
)
def test_einsum_broadcasts(shapes: str, equation: str, expected: Shape) -> None:
    assert noted(model(f'g ({shapes}) => (float[A] y) {{ y = Einsum<equation = "{equation}">(x, z) }}')) == expected


def test_einsum_of_two_names_is_unknown() -> None:
    shape = noted(
        model('g (float[N,3] x, float[M,3] z) => (float[A,B] y) { y = Einsum<equation = "ij,ij->ij">(x, z) }')
    )
    assert shape is not None
    assert shape[0] not in ("N", "M")
    assert shape[1] == 3


@pytest.mark.parametrize("scale", [0.7, 0.9, 1.1, 1.3, 2.0, 2.2, 2.3, 2.6, 3.3])
@pytest.mark.parametrize("opset", [9, 10, 11, 17, 19])
def test_resize_by_scales(scale: float, opset: int) -> None:
    call = {9: "Upsample(x, s)", 10: "Resize(x, s)"}.get(opset, "Resize(x, roi, s)")
    weights: dict[str, Any] = {"s": np.array([1, 1, scale], F)} | ({"roi": np.zeros(0, F)} if opset > 10 else {})
    proto = model(f"g (float[1,1,10] x) => (float[A,B,C] y) {{ y = {call} }}", weights, opset=opset)
    shape = noted(proto)
    assert shape is not None
    assert shape[:2] == (1, 1)
    if scale == 2.3:
        assert not isinstance(shape[2], int)
    if scale == 2.0:
        assert shape[2] == 20
    if opset >= 10 or scale >= 1:
        (result,) = run(proto, {"x": np.zeros((1, 1, 10), F)})
        assert not isinstance(shape[2], int) or shape[2] == result.shape[2]


@pytest.mark.parametrize("inputs", ["s, e, a", "s, e, first, a"])
def test_a_slice_along_axes_of_unknown_rank(inputs: str) -> None:
    """onnx takes the first axes, and steps of 1."""
    weights = {"s": np.array([1]), "e": np.array([2]), "first": np.array([0])}
    used = {name: value for name, value in weights.items() if name in inputs.split(", ")}
    proto = model(f"g (float[4,4] x, int64[R] a) => (float[A,B] z) {{ y = Slice(x, {inputs}) z = Relu(y) }}", used)
    proto.graph.input[1].type.tensor_type.ClearField("shape")
    graph = import_model(proto)
    infer_types(graph)
    shape = find(graph, "z").result.shape
    assert shape is not None
    assert not any(isinstance(dim, int) for dim in shape)


def test_a_slice_along_axes_that_are_a_graph_output() -> None:
    text = "g (float[2,2] x) => (float[A,B] y, int64[1] one) { y = Slice(x, one, two, one) }"
    proto = model(text, {"one": np.array([1]), "two": np.array([2])})
    assert noted(proto) == (2, 1)


# opset, inputs, the operator, constants, what y's shape is in ONNX Runtime with M = 5, N = 4 and K = 3
WRONG = [
    (10, "float[M,N] x", "Slice(x, zero, minus, one)", (5, 3)),
    (10, "float[M,N] x", "Slice(x, zero, minus)", (4, 4)),
    (9, "float[1,3,1] x", "Squeeze<axes = [2, 0]>(x)", (3,)),
    (9, "float[1,3,1] x", "Squeeze<axes = [-1]>(x)", (1, 3)),
    (23, "float[1,2,4] x, float[1,5,4] k, float[1,5,N] v",
     "Attention<kv_num_heads = 2, q_num_heads = 2>(x, k, v)", (1, 2, 4)),
    (20, "float[1,M,1] x, int64 n", "DFT(x, n)", (1, 3, 2)),
    (11, "float point", "Range(point, far, step)", None),
    (19, "float[1,1,7,6] x", 'MaxPool<auto_pad = "SAME_UPPER", dilations = [2, 2], kernel_shape = [2, 2]>(x)', None),
    (17, "float[1,1,7,6] x, float[1,1,3,3] w",
     'ConvTranspose<auto_pad = "SAME_UPPER", output_padding = [1, 1], strides = [2, 2]>(x, w)', None),
]  # fmt: skip
SIZES = {"M": 5, "N": 4, "K": 3}
CONSTANTS = {
    "zero": np.array([0]),
    "one": np.array([1]),
    "minus": np.array([-1]),
    "far": F(2.3),
    "step": F(0.1),
}


@pytest.mark.parametrize(("opset", "inputs", "operator", "shape"), WRONG, ids=[w[2].split("<")[0] for w in WRONG])
def test_what_onnx_is_wrong_about(opset: int, inputs: str, operator: str, shape: Shape | None) -> None:
    """Nothing is noted that is not so: dimensions are those of the run, or unknown."""
    weights = {name: value for name, value in CONSTANTS.items() if f" {name}," in operator or f" {name})" in operator}
    if operator.startswith("Range"):
        inputs, weights["point"] = "float other", F(0.1)
    proto = model(f"g ({inputs}) => (float y) {{ y = {operator} }}", weights, opset=opset)
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    found = noted(proto)
    if shape is None:
        assert found is None or not any(isinstance(dim, int) for dim in found[-2:])
    elif found is not None:
        known = [SIZES.get(dim) if isinstance(dim, str) else dim for dim in found]
        assert len(known) == len(shape)
        assert all(dim in (None, right) for dim, right in zip(known, shape, strict=True))


def test_the_rest_of_a_slice_of_opset_10_is_known() -> None:
    proto = model(
        "g (float[M,N,3] x) => (float[A,B,C] y) { y = Slice(x, zero, one, one) }",
        {"zero": np.array([0]), "one": np.array([1])}, opset=10,
    )  # fmt: skip
    shape = noted(proto)
    assert shape is not None
    assert (shape[0], shape[2]) == ("M", 3)
    assert shape[1] != "N"


@pytest.mark.parametrize(("limit", "count"), [(2.25, 22), (2.3, None)])
def test_a_range_of_floats(limit: float, count: int | None) -> None:
    proto = model("g (float other) => (float[A] y) { y = Range(s, l, d) }", {"s": F(0.1), "l": F(limit), "d": F(0.1)})
    (size,) = noted(proto) or (None,)
    assert size == count or (count is None and not isinstance(size, int))


@pytest.mark.parametrize(("sizes", "kept"), [((21, 10), (1, 1, None, None)), ((20, 30), (1, 1, None, None))])
@pytest.mark.parametrize("policy", ["not_smaller", "not_larger"])
def test_sizes_that_keep_the_proportions(policy: str, sizes: tuple[int, int], kept: Shape) -> None:
    """10 to 21 rows scale 15 columns by 2.1: 31.5 in exact numbers, less in the float32 of ONNX Runtime."""
    text = "g (float[1,1,10,15] x) => (float[A,B,C,D] z) { y = Resize<axes=[2,3], POLICY>(x, , , s) z = Relu(y) }"
    text = text.replace("POLICY", f'keep_aspect_ratio_policy="{policy}"')
    proto = model(text, {"s": np.array(sizes, np.int64)}, opset=18)
    assert noted(proto) == kept
    (given,) = run(proto, {"x": np.ones((1, 1, 10, 15), F)})
    assert given.shape[:2] == (1, 1)


@pytest.mark.parametrize(("shape", "rows"), [("", None), ("3", 1), ("3,4", 2)])
def test_places_of_a_single_number(shape: str, rows: int | None) -> None:
    """The standard gives no row for a scalar, ONNX Runtime one."""
    proto = model(f"g (float[{shape}] x) => (int64[A,B] z) {{ y = NonZero(x) z = Neg(y) }}".replace("[]", ""))
    found = noted(proto)
    assert found is not None
    assert found[0] == rows
