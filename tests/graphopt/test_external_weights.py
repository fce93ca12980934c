"""Weights beside the model: it is optimized as with its weights inside, however small they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.external_data_helper import _get_all_tensors

import graphopt
from tests.fuzz.generate import stream
from tests.fuzz.models import Case
from tests.fuzz.oracle import SETTINGS, Setting, optimize
from tests.support.models import model

F = np.float32


def save_beside(proto: onnx.ModelProto, folder: Path) -> Path:
    """Saves the model with all its initializers in another file."""
    path = folder / "model.onnx"
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    (folder / "weights").unlink(missing_ok=True)
    onnx.save_model(copy, path, save_as_external_data=True, location="weights", size_threshold=0)
    return path


def nodes_and_weights(proto: onnx.ModelProto) -> Any:
    return proto.graph.node, {t.name: onnx.numpy_helper.to_array(t).tolist() for t in proto.graph.initializer}


@pytest.mark.parametrize("setting", [SETTINGS[i] for i in (0, 2, 3, 5)], ids=str)
def test_drawn_models_with_their_weights_beside_them(setting: Setting, tmp_path: Path) -> None:
    cases: list[Case] = []
    draw = stream(31, cases.append)
    for number in range(25):
        draw(number)
    cases = [case for case in cases if case.model.graph.initializer]
    assert len(cases) > 10
    for case in cases:
        inside = optimize(case.model, setting)
        beside = optimize(save_beside(case.model, tmp_path), setting)
        assert nodes_and_weights(beside.model) == nodes_and_weights(inside.model)


def test_constants_beside_the_model_are_computed_with(tmp_path: Path) -> None:
    text = "g (float[1,3] x) => (float[1,3] y, float[1,3] z) { c = Add(a, b)\n z = Sqrt(c)\n y = Mul(x, z) }"
    proto = model(text, {"a": np.array([[1, 2, 3]], F), "b": np.array([[8, 7, 6]], F)})
    result = graphopt.optimize(save_beside(proto, tmp_path))
    assert result.report.applied == {"fold-constant-subgraph": 1}
    assert sorted(n.op_type for n in result.model.graph.node) == ["Constant", "Mul"]
    assert not graphopt.optimize(result.model).report.applied


def test_shapes_beside_the_model_are_known(tmp_path: Path) -> None:
    text = "g (float[4,6] x) => (float[y0,y1,y2] y) { a = Reshape(x, s)\n b = Reshape(a, t)\n y = Relu(b) }"
    proto = model(text, {"s": np.array([2, -1]), "t": np.array([2, 3, 4])})
    result = graphopt.optimize(save_beside(proto, tmp_path))
    assert [n.op_type for n in result.model.graph.node] == ["Reshape", "Relu"]


def test_a_block_written_as_a_function_holds_its_constants(tmp_path: Path) -> None:
    """The function's Constant node holds the value: a place in a file would be lost where the model is saved again."""
    text = "g (float[1,2,4,4] x) => (float[1,2,4,4] y) { a = Conv(x, w)\n y = Clip(a, lo, hi) }"
    weights = {"w": np.ones((2, 2, 1, 1), F), "lo": F(-1), "hi": F(6)}
    result = graphopt.optimize(save_beside(model(text, weights), tmp_path), block="function")
    (tmp_path / "other").mkdir()
    result.save(tmp_path / "other" / "model.onnx")
    (tmp_path / "weights").unlink()
    onnx.checker.check_model(str(tmp_path / "other" / "model.onnx"))
    held = [a.t for f in onnx.load(tmp_path / "other" / "model.onnx").functions for n in f.node for a in n.attribute]
    assert [onnx.numpy_helper.to_array(t).tolist() for t in held] == [-1, 6]


def beside(values: np.ndarray, folder: Path) -> onnx.TensorProto:
    """The values in a file of the folder, and what names them."""
    (folder / "values").write_bytes(values.tobytes())
    tensor = onnx.TensorProto(
        data_type=onnx.TensorProto.FLOAT, dims=values.shape, data_location=onnx.TensorProto.EXTERNAL
    )
    for key, value in (("location", "values"), ("offset", "0"), ("length", str(values.nbytes))):
        tensor.external_data.add(key=key, value=value)
    return tensor


@pytest.mark.parametrize("place", ["function", "branch"])
def test_values_of_constant_nodes_are_found_from_any_folder(place: str, tmp_path: Path) -> None:
    """In a function, and as the very result of a branch: onnx looks for them in the working directory."""
    values = np.linspace(0, 1, 400, dtype=F)
    node = onnx.helper.make_node("Constant", [], ["q"], value=beside(values, tmp_path))
    if place == "function":
        function = '<domain: "d", opset_import: ["" : 17]> f (a) => (b) { q = Identity(a)\n b = Add(a, q) }'
        proto = model("g (float[400] x) => (float[400] y) { y = d.f(x) }", functions=function, domains=', "d" : 1')
        proto.functions[0].node[0].CopyFrom(node)
    else:
        proto = model(
            "g (float[400] x, bool c) => (float[400] y) { y = If(c) <then_branch = t () => (float[400] o) "
            "{ o = Relu(x) }, else_branch = e () => (float[400] q) { q = Identity(x) }> }"
        )
        proto.graph.node[0].attribute[1].g.node[0].CopyFrom(node)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    result = graphopt.optimize(path, verify=False).model
    held = [np.frombuffer(t.raw_data, F) for t in _get_all_tensors(result) if t.raw_data]
    assert any(len(v) == 400 and (v == values).all() for v in held)
