"""Small models, written as text, that TensorRT builds in a fraction of a second."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.numpy_helper
import onnx.parser

_WEIGHTS = [("w", (4, 3, 3, 3)), ("v", (4, 4, 1, 1))]


def model(graph: str, *, opset: int = 17, domains: str = "") -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": {opset}{domains}]> {graph}')


def small_net(batch: str = "1") -> onnx.ModelProto:
    """Two convolutions with a sigmoid between them; its input is `x`, its output `y`."""
    net = model(
        f"net (float[{batch},3,8,8] x) => (float[{batch},4,8,8] y) {{\n"
        "[first] c = Conv<pads=[1,1,1,1]>(x, w)\n [act] s = Sigmoid(c)\n [second] y = Conv(s, v)\n}"
    )
    rng = np.random.default_rng(0)
    for name, shape in _WEIGHTS:
        values = rng.standard_normal(shape).astype(np.float32)
        net.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return net


def two_branches() -> onnx.ModelProto:
    """Two convolutions of one tensor, concatenated: TensorRT may put them on two streams."""
    net = model(
        "net (float[1,4,8,8] x) => (float[1,8,8,8] y) {\n"
        "a = Conv(x, v)\n b = Conv<pads=[1,1,1,1]>(x, u)\n y = Concat<axis=1>(a, b)\n}"
    )
    rng = np.random.default_rng(1)
    for name, shape in (("v", (4, 4, 1, 1)), ("u", (4, 4, 3, 3))):
        net.graph.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    return net


def renamed(net: onnx.ModelProto, old: str, new: str) -> onnx.ModelProto:
    """The model with one tensor's name changed everywhere."""
    for node in net.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in [*net.graph.input, *net.graph.output]:
        value.name = new if value.name == old else value.name
    return net
