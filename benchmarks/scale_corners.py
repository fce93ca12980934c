"""Models of any size for the tests of growth: shapes of graphs on which rewriters are often quadratic.

All are built as protobufs by hand, in time linear in `nodes`: about as many nodes, or inputs, or what else grows.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks.scale_models import CHANNELS, FLOAT, Weights, model_of

DEEPEST = 24  # bodies within bodies


def equal_nodes_to_one(op: str) -> Callable[[int], ModelProto]:
    """Pairs of equal nodes, all read by one node of as many inputs."""

    def made(nodes: int) -> ModelProto:
        return _to_one(op, [f"c{i // 2}" for i in range(nodes)], {f"c{i}": _row(i) for i in range(nodes // 2 + 1)})

    return made


def equal_weights_to_one(nodes: int) -> ModelProto:
    """One Concat of initializers, each of which is there twice."""
    weights = {f"w{i}": _row(i // 2) for i in range(nodes)}
    join = helper.make_node("Concat", ["x", *weights], ["y"], axis=1)
    return model_of([join, helper.make_node("Relu", ["y"], ["z"])], weights, [1, CHANNELS], ["z"])


def all_equal(nodes: int) -> ModelProto:
    """The same node again and again, with a weight of its own that is the others' equal; one node reads them all."""
    return _to_one("Sum", [f"c{i}" for i in range(nodes)], {f"c{i}": _row(1) for i in range(nodes)})


def noops_to_one(nodes: int) -> ModelProto:
    """Identities and sums with zero of different tensors, all read by one Concat."""
    made = []
    for i in range(nodes // 3):
        made.append(helper.make_node("Sigmoid" if i % 2 else "Tanh", [f"a{i - 1}" if i else "x"], [f"a{i}"]))
        made.append(helper.make_node("Identity", [f"a{i}"], [f"b{i}"]))
        made.append(helper.make_node("Add", [f"b{i}", "zero"], [f"c{i}"]))
    made.append(helper.make_node("Concat", [f"c{i}" for i in range(nodes // 3)], ["y"], axis=1))
    return model_of(made, {"zero": np.zeros((1, CHANNELS), np.float32)}, [1, CHANNELS], ["y"])


def noops_from_one(nodes: int) -> ModelProto:
    """Identities of one tensor, each read by a node of its own whose result is an output of the graph."""
    made = []
    for i in range(nodes // 2):
        made.append(helper.make_node("Identity", ["x"], [f"a{i}"]))
        made.append(helper.make_node("Add", [f"a{i}", f"c{i}"], [f"b{i}"]))
    weights = {f"c{i}": _row(i) for i in range(nodes // 2)}
    return model_of(made, weights, [1, CHANNELS], [f"b{i}" for i in range(nodes // 2)])


def equal_outputs(nodes: int) -> ModelProto:
    """Equal nodes whose results are all outputs of the graph, and as many Identities that are outputs, too."""
    half = nodes // 2
    made = [helper.make_node("Relu", ["x"], [f"a{i}"]) for i in range(half)]
    made += [helper.make_node("Identity", [f"a{i}"], [f"b{i}"]) for i in range(half)]
    return model_of(made, {}, [1, CHANNELS], [f"{name}{i}" for name in "ab" for i in range(half)])


def transposes(nodes: int) -> ModelProto:
    """Transposes of one tensor behind each other, with operators between through which they sink."""
    made = []
    last = "x"
    for i in range(nodes // 2):
        made.append(helper.make_node("Transpose", [last], [f"a{i}"], perm=[0, 2, 3, 1] if i % 2 else [0, 3, 1, 2]))
        made.append(helper.make_node("Relu" if i % 3 else "Sigmoid", [f"a{i}"], [f"b{i}"]))
        last = f"b{i}"
    return model_of(made, {}, [1, CHANNELS, CHANNELS, CHANNELS], [last])


def dead(nodes: int) -> ModelProto:
    """A long chain that nothing reads, beside one node that is read."""
    made = [helper.make_node("Tanh", [f"d{i - 1}" if i else "x"], [f"d{i}"]) for i in range(nodes)]
    return model_of([*made, helper.make_node("Relu", ["x"], ["y"])], {}, [1, CHANNELS], ["y"])


def split_and_concat(nodes: int) -> ModelProto:
    """One Split of as many parts, each through a node of its own, and all together again."""
    parts = [f"p{i}" for i in range(nodes // 2)]
    made = [helper.make_node("Split", ["x", "sizes"], parts, axis=1)]
    made += [helper.make_node("Relu" if i % 2 else "Tanh", [p], [f"r{i}"]) for i, p in enumerate(parts)]
    made.append(helper.make_node("Concat", [f"r{i}" for i in range(len(parts))], ["y"], axis=1))
    return model_of(made, {"sizes": np.ones(len(parts), np.int64)}, [1, len(parts)], ["y"])


def slices(nodes: int) -> ModelProto:
    """One tensor cut by as many Slices, and put together again."""
    half = nodes - 1
    weights: Weights = {"axis": np.array([1], np.int64)}
    weights.update({f"i{i}": np.array([i], np.int64) for i in range(half + 1)})
    made = [helper.make_node("Slice", ["x", f"i{i}", f"i{i + 1}", "axis"], [f"s{i}"]) for i in range(half)]
    made.append(helper.make_node("Concat", [f"s{i}" for i in range(half)], ["y"], axis=1))
    return model_of(made, weights, [1, half], ["y"])


def residual(nodes: int) -> ModelProto:
    """One tensor added at each step of a chain: it has as many readers as the chain has steps."""
    made = []
    last = "x"
    for i in range(nodes // 2):
        made.append(helper.make_node("Sigmoid", [last], [f"a{i}"]))
        made.append(helper.make_node("Add", [f"a{i}", "x"], [f"b{i}"]))
        last = f"b{i}"
    return model_of(made, {}, [1, CHANNELS], [last])


def dense(nodes: int) -> ModelProto:
    """Blocks in which each Concat reads all results of the block before it: eight to a block."""
    made: list[NodeProto] = []
    last = "x"
    weights: Weights = {"w": np.full((CHANNELS, CHANNELS, 1, 1), 0.1, np.float32)}
    for block in range(max(nodes // 16, 1)):
        seen = [last]
        for step in range(8):
            join, out = f"j{block}_{step}", f"t{block}_{step}"
            weights[f"w{step}"] = np.full((CHANNELS, CHANNELS * len(seen), 1, 1), 0.1, np.float32)
            made.append(helper.make_node("Concat", seen, [join], axis=1))
            made.append(helper.make_node("Conv", [join, f"w{step}"], [out]))
            seen = [*seen, out]
        last = seen[-1]
    return model_of(made, weights, [1, CHANNELS, 2, 2], [last])


def functions(nodes: int) -> ModelProto:
    """As many functions of two nodes, each called once."""
    opset = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    made: list[FunctionProto] = []
    calls = []
    for i in range(nodes // 3):
        body = [helper.make_node("Identity", ["a"], ["t"]), helper.make_node("Relu", ["t"], ["b"])]
        made.append(helper.make_function("local", f"F{i}", ["a"], ["b"], body, opset[:1]))
        calls.append(helper.make_node(f"F{i}", [f"t{i - 1}" if i else "x"], [f"t{i}"], domain="local"))
    model = model_of(calls, {}, [1, CHANNELS], [calls[-1].output[0]])
    del model.opset_import[:]
    model.opset_import.extend(opset)
    model.functions.extend(made)
    return model


def nested(nodes: int) -> ModelProto:
    """Ifs within Ifs, `DEEPEST` levels, each with its share of nodes that read a tensor of the main graph."""
    each = max(nodes // DEEPEST, 1)
    inner: GraphProto | None = None
    for level in reversed(range(DEEPEST)):
        last = "x"
        made = []
        for i in range(each):
            made.append(helper.make_node("Relu" if i % 2 else "Tanh", [last], [f"n{level}_{i}"]))
            last = f"n{level}_{i}"
        if inner is not None:
            other = helper.make_graph(
                [helper.make_node("Abs", ["x"], [f"o{level}"])], "other", [], [_open(f"o{level}")]
            )
            made.append(helper.make_node("If", ["condition"], [f"i{level}"], then_branch=inner, else_branch=other))
            made.append(helper.make_node("Add", [last, f"i{level}"], [f"s{level}"]))
            last = f"s{level}"
        inner = helper.make_graph(made, f"level{level}", [], [_open(last)])
    assert inner is not None
    top = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["condition"]),
        helper.make_node("If", ["condition"], ["y"], then_branch=inner, else_branch=_abs("e")),
    ]
    return model_of(top, {"zero": np.array(0, np.float32)}, [1, CHANNELS], ["y"])


def constants(nodes: int) -> ModelProto:
    """Constant nodes that other constant nodes are computed of, one behind the other."""
    made = [helper.make_node("Constant", [], ["k0"], value=numpy_helper.from_array(_row(1)))]
    made += [helper.make_node("Add", [f"k{i - 1}", "one"], [f"k{i}"]) for i in range(1, nodes)]
    made.append(helper.make_node("Add", ["x", f"k{nodes - 1}"], ["y"]))
    return model_of(made, {"one": np.ones((1, 1), np.float32)}, [1, CHANNELS], ["y"])


def _to_one(op: str, reads: list[str], weights: Weights) -> ModelProto:
    made = [helper.make_node("Mul", ["x", name], [f"t{i}"]) for i, name in enumerate(reads)]
    attributes = {"axis": 1} if op == "Concat" else {}
    made.append(helper.make_node(op, [f"t{i}" for i in range(len(reads))], ["y"], **attributes))
    return model_of(made, weights, [1, CHANNELS], ["y"])


def _row(number: int) -> np.ndarray:
    return np.full((1, CHANNELS), 1 + number / 7, np.float32)


def _open(name: str) -> TensorProto:
    return helper.make_tensor_value_info(name, FLOAT, None)


def _abs(name: str) -> GraphProto:
    return helper.make_graph([helper.make_node("Abs", ["x"], [name])], name, [], [_open(name)])


CORNERS: dict[str, Callable[[int], ModelProto]] = {
    "all-equal": all_equal,
    "constants": constants,
    "dead": dead,
    "dense": dense,
    "equal-nodes-to-a-concat": equal_nodes_to_one("Concat"),
    "equal-nodes-to-a-max": equal_nodes_to_one("Max"),
    "equal-nodes-to-a-sum": equal_nodes_to_one("Sum"),
    "equal-outputs": equal_outputs,
    "equal-weights-to-one": equal_weights_to_one,
    "functions": functions,
    "nested": nested,
    "noops-from-one": noops_from_one,
    "noops-to-one": noops_to_one,
    "residual": residual,
    "slices": slices,
    "split-and-concat": split_and_concat,
    "transposes": transposes,
}
