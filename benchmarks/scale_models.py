"""Models of any size for the benchmark of scale: what grows in each is named in its docstring.

All are built as protobufs by hand, in time linear in their nodes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from benchmarks.scale_layers import Layers

FLOAT = TensorProto.FLOAT
CHANNELS = 4
SIDE = 8

Weights = dict[str, NDArray[Any]]


def model_of(nodes: list[NodeProto], weights: Weights, shape: list[int | str], outputs: list[str]) -> ModelProto:
    """A model with one input `x` of `shape` and float outputs of the same rank, whose dimensions are left open."""
    graph = helper.make_graph(
        nodes,
        "scale",
        [helper.make_tensor_value_info("x", FLOAT, shape)],
        [helper.make_tensor_value_info(o, FLOAT, [f"{o}_{axis}" for axis in range(len(shape))]) for o in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def chain(nodes: int) -> ModelProto:
    """Conv (1x1, four channels), Relu, Add of a constant, in turn; each Conv and Add has weights of its own."""
    rng = np.random.default_rng(0)
    made: list[NodeProto] = []
    weights: Weights = {}
    last = "x"
    for i in range(nodes):
        out, kind = f"t{i}", i % 3
        if kind == 0:
            weights[f"w{i}"] = (rng.standard_normal((CHANNELS, CHANNELS, 1, 1)) * 0.4).astype(np.float32)
            made.append(helper.make_node("Conv", [last, f"w{i}"], [out], kernel_shape=[1, 1], name=f"conv{i}"))
        elif kind == 1:
            made.append(helper.make_node("Relu", [last], [out], name=f"relu{i}"))
        else:
            weights[f"w{i}"] = rng.standard_normal((1, CHANNELS, 1, 1)).astype(np.float32)
            made.append(helper.make_node("Add", [last, f"w{i}"], [out], name=f"add{i}"))
        last = out
    return model_of(made, weights, [1, CHANNELS, SIDE, SIDE], [last])


def fan(nodes: int) -> ModelProto:
    """One tensor with as many consumers: element-wise operators with different constants, summed at the end."""
    half = max(nodes - 1, 1)
    ops = ("Mul", "Add", "Sub", "Div")
    made = [helper.make_node(ops[i % 4], ["x", f"c{i}"], [f"t{i}"], name=f"n{i}") for i in range(half)]
    weights = {f"c{i}": np.full((1, CHANNELS), 1 + i / half, np.float32) for i in range(half)}
    made.append(helper.make_node("Concat", [f"t{i}" for i in range(half)], ["y"], axis=1))
    return model_of(made, weights, [1, CHANNELS], ["y"])


def sibling_fan(nodes: int) -> ModelProto:
    """One tensor read by as many 1x1 Convs, which meet in a Concat."""
    count = max(nodes - 1, 1)
    rng = np.random.default_rng(0)
    made = [helper.make_node("Conv", ["x", f"w{i}"], [f"t{i}"], name=f"n{i}") for i in range(count)]
    weights = {f"w{i}": rng.standard_normal((1, CHANNELS, 1, 1)).astype(np.float32) for i in range(count)}
    made.append(helper.make_node("Concat", [f"t{i}" for i in range(count)], ["y"], axis=1))
    return model_of(made, weights, [1, CHANNELS, SIDE, SIDE], ["y"])


def grid(nodes: int) -> ModelProto:
    """A square of Adds and Maxes, in turn: each reads its neighbours above and on the left."""
    side = max(int(nodes**0.5), 2)
    above = ["x"] * side
    made = []
    for row in range(side):
        left = "x"
        for column in range(side):
            out = f"t{row}_{column}"
            op = "Max" if (row + column) % 2 else "Add"
            made.append(helper.make_node(op, [left, above[column]], [out]))
            above[column] = left = out
    return model_of(made, {}, [1, CHANNELS], [above[-1]])


def shape_arithmetic(nodes: int) -> ModelProto:
    """Flatten as exporters write it (Shape, Gather, Unsqueeze, Concat, Reshape), again and again."""
    made: list[NodeProto] = []
    last = "x"
    weights: Weights = {
        "zero": np.array(0, np.int64),
        "axes": np.array([0], np.int64),
        "rest": np.array([-1], np.int64),
    }
    for i in range(max(nodes // 6, 1)):
        s, g, u, c, r, out = (f"{k}{i}" for k in ("s", "g", "u", "c", "r", "t"))
        made += [
            helper.make_node("Shape", [last], [s]),
            helper.make_node("Gather", [s, "zero"], [g], axis=0),
            helper.make_node("Unsqueeze", [g, "axes"], [u]),
            helper.make_node("Concat", [u, "rest"], [c], axis=0),
            helper.make_node("Reshape", [last, c], [r]),
            helper.make_node("Relu" if i % 2 else "Sigmoid", [r], [out]),
        ]
        last = out
    return model_of(made, weights, ["N", CHANNELS], [last])


def branches(nodes: int) -> ModelProto:
    """If nodes with two bodies each (three nodes in all), whose condition is computed from the input."""
    made = [
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["condition"]),
    ]
    last = "x"
    for i in range(max(nodes // 3, 1)):
        out = f"t{i}"
        bodies: dict[str, Any] = {
            "then_branch": branch("Relu", last, f"a{i}"),
            "else_branch": branch("Sigmoid", last, f"b{i}"),
        }
        made.append(helper.make_node("If", ["condition"], [out], name=f"if{i}", **bodies))
        last = out
    return model_of(made, {"zero": np.array(0, np.float32)}, [1, CHANNELS], [last])


def branch(op: str, outer: str, name: str) -> GraphProto:
    """A body of one node that reads a tensor of the outer graph."""
    output = helper.make_tensor_value_info(name, FLOAT, None)
    return helper.make_graph([helper.make_node(op, [outer], [name])], name, [], [output])


def transformer(nodes: int, width: int = 64, heads: int = 4) -> ModelProto:
    """Encoder layers as a torch export without folding writes them: decomposed LayerNorm, GELU, shape arithmetic.

    Each layer has about 190 nodes when nothing is folded.
    """
    layers = Layers(width, heads)
    while len(layers.nodes) < nodes:
        layers.encoder_layer()
    return model_of(layers.nodes, layers.weights, ["N", 16, width], [layers.last])


FAMILIES: dict[str, Callable[[int], ModelProto]] = {
    "chain": chain,
    "fan": fan,
    "sibling-fan": sibling_fan,
    "grid": grid,
    "shape-arithmetic": shape_arithmetic,
    "branches": branches,
    "transformer": transformer,
}


def write(family: str, nodes: int, folder: Path) -> Path:
    """The path of the model of `family` with about `nodes` nodes, made when it is not there yet."""
    path = folder / f"{family}-{nodes}.onnx"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        onnx.save(FAMILIES[family](nodes), path)
    return path


def main() -> None:
    """Writes one model."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("family", choices=FAMILIES)
    parser.add_argument("nodes", type=int)
    parser.add_argument("--folder", type=Path, default=Path("build/scale"))
    arguments = parser.parse_args()
    print(write(arguments.family, arguments.nodes, arguments.folder))


if __name__ == "__main__":
    main()
