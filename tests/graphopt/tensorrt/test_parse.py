from __future__ import annotations

from pathlib import Path

import onnx
import pytest

from graphopt.errors import EngineError, ModelError, UnsafeModelError
from graphopt.tensorrt import build_engine, check_parse
from tests.graphopt.tensorrt.models import model, small_net

pytestmark = pytest.mark.usefixtures("rtx", "no_gpu")


def test_a_model_that_the_parser_takes() -> None:
    net = small_net()
    before = net.SerializeToString(deterministic=True)
    report = check_parse(net)
    assert report.accepted
    assert not report.refused
    assert "TensorRT" in report.parser
    assert net.SerializeToString(deterministic=True) == before


def test_each_refused_node_is_named_with_its_reason() -> None:
    net = model(
        "g (float[2] x) => (float[2] y) {\n[one] a = Det(x)\n [two] y = acme.Magic(a)\n}", domains=', "acme": 1'
    )
    report = check_parse(net)
    assert not report.accepted
    assert {(node.index, node.name, node.op_type) for node in report.refused} == {
        (0, "one", "Det"),
        (1, "two", "Magic"),
    }
    assert all(node.reason == "an operator that it does not know" for node in report.refused)
    with pytest.raises(EngineError, match="Det 'one'"):
        build_engine(net)


def test_many_refused_nodes_make_one_short_sentence() -> None:
    nodes = "\n".join(f"t{i + 1} = Det(t{i})" for i in range(20))
    report = check_parse(model(f"g (float[2,2] t0) => (float y) {{\n{nodes}\n y = Identity(t20)\n}}"))
    assert len(report.refused) == 20
    assert str(report).count("Det") == 3
    assert "and 17 more" in str(report)


def test_a_node_refused_for_two_reasons_is_one_node() -> None:
    inputs = "float[1,2,4,4] x, float[2] s, float[2] b, float[2] m, float[2] v"
    net = model(
        f"g ({inputs}) => (float[1,2,4,4] y, float[2] p, float[2] q) {{\n"
        "y, p, q = BatchNormalization<training_mode=1>(x, s, b, m, v)\n}"
    )
    (node,) = check_parse(net).refused
    assert node.op_type == "BatchNormalization"
    assert "; " in node.reason


@pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "x" * 500])
def test_a_hostile_name_stays_on_one_line(name: str) -> None:
    net = model("g (float[2,2] x) => (float y) { y = Det(x) }")
    net.graph.node[0].name = name
    text = str(check_parse(net))
    assert text.isprintable()
    assert len(text) < 300


def test_an_input_without_a_rank_is_refused_and_not_taken_for_a_scalar() -> None:
    net = model("g (float[2] x) => (float[2] y) { y = Relu(x) }")
    net.graph.input[0].type.tensor_type.ClearField("shape")
    report = check_parse(net)
    assert "input 'x' has no rank" in str(report)
    assert not report.accepted


@pytest.mark.parametrize("content", [b"hello text", b"", b"\x08\x08\x12\x07pytorch", b"\xff\xfe\x00"])
def test_a_file_that_is_no_model(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        check_parse(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        check_parse(tmp_path / "none.onnx")


def test_external_data_is_read_from_beside_the_file(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(small_net(), path, save_as_external_data=True, location="m.data", size_threshold=0)
    assert (tmp_path / "m.data").exists()
    there, held = build_engine(path), build_engine(small_net())
    assert there.facts == held.facts
    assert there.facts.weights_bytes


def test_external_data_outside_the_folder_is_refused(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    onnx.save(small_net(), inner / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    net = onnx.load(inner / "m.onnx", load_external_data=False)
    for tensor in net.graph.initializer:
        next(e for e in tensor.external_data if e.key == "location").value = "../m.data"
    (inner / "m.data").rename(tmp_path / "m.data")
    (inner / "m.onnx").write_bytes(net.SerializeToString())
    with pytest.raises(UnsafeModelError):
        check_parse(inner / "m.onnx")


def test_external_data_of_a_model_in_memory_needs_its_path(tmp_path: Path) -> None:
    onnx.save(small_net(), tmp_path / "m.onnx", save_as_external_data=True, location="m.data", size_threshold=0)
    with pytest.raises(ModelError, match="path"):
        check_parse(onnx.load(tmp_path / "m.onnx", load_external_data=False))
