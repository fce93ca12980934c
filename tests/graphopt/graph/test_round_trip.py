"""Reading and writing loses nothing: what no rewrite touched comes out as it went in."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, ModelProto, TensorProto, helper, numpy_helper, parser

from graphopt.errors import ModelError
from graphopt.graph import ProtoConstant, export_model, import_model
from graphopt.graph.exporter import attribute_proto
from tests.support.models import model


def round_trip(proto: ModelProto) -> ModelProto:
    before = proto.SerializeToString(deterministic=True)
    result = export_model(import_model(proto))
    assert proto.SerializeToString(deterministic=True) == before, "the input was changed"
    return result


def rich_model() -> ModelProto:
    proto = model(
        "g (float[1,4] x, bool c) => (float[1,4] y) { w = Mul(x, s) \n z = My.Scale<by: float = 2.0>(w) \n"
        " y = If (c) <then_branch = t () => (float[1,4] a) { a = Add(z, x) }, "
        "else_branch = e () => (float[1,4] a) { a = Sub(z, x) }> }",
        {"s": np.ones(4, np.float32)},
        domains=', "My" : 1',
        functions='<domain: "My", opset_import: ["" : 17]> Scale <by>(p) => (q) '
        "{ k = Constant<value_float: float = @by>() \n q = Mul(p, k) }",
    )
    proto.producer_name, proto.producer_version, proto.model_version, proto.doc_string = "me", "1.2", 7, "what it is"
    proto.domain = "org.example"
    helper.set_model_props(proto, {"author": "someone"})
    graph = proto.graph
    graph.doc_string = "the graph"
    graph.metadata_props.add(key="k", value="v")
    graph.node[0].doc_string = "a node"
    graph.node[0].metadata_props.add(key="layer", value="first")
    graph.value_info.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [1, 4]))
    annotation = graph.quantization_annotation.add(tensor_name="w")
    annotation.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    values = helper.make_tensor("sparse", TensorProto.FLOAT, [1], [3.0])
    indices = helper.make_tensor("at", TensorProto.INT64, [1], [2])
    graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    return proto


def test_everything_the_file_says_survives() -> None:
    proto = rich_model()
    assert round_trip(proto).SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)


def test_strings_that_are_no_text_survive() -> None:
    proto = model("g (float[1] x) => (float[1] y) { y = Relu(x) }")
    attribute = proto.graph.node[0].attribute.add(name="blob", type=onnx.AttributeProto.STRING)
    attribute.s = b"\xff\xfe"
    assert round_trip(proto) == proto


@pytest.mark.parametrize("kind", ["type_proto", "tensors", "sparse_tensor"])
def test_rare_attributes_survive(kind: str) -> None:
    proto = model("g (float[1] x) => (float[1] y) { y = Own.Op(x) }", domains=', "Own" : 1')
    tensor = numpy_helper.from_array(np.ones(2, np.float32), "t")
    values = {
        "type_proto": helper.make_tensor_type_proto(1, [2]),
        "tensors": [tensor, tensor],
        "sparse_tensor": helper.make_sparse_tensor(
            helper.make_tensor("v", 1, [1], [1.0]), helper.make_tensor("i", 7, [1], [0]), [3]
        ),
    }
    proto.graph.node[0].attribute.append(helper.make_attribute("a", values[kind]))
    assert round_trip(proto) == proto


def test_order_of_attributes_with_bodies_survives() -> None:
    proto = rich_model()
    node = proto.graph.node[-1]
    node.attribute.insert(1, helper.make_attribute("between", 1))
    assert round_trip(proto) == proto


def test_inputs_with_defaults_are_no_constants() -> None:
    proto = model("g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", {"w": np.ones(2, np.float32)})
    graph = import_model(proto).graph
    assert [t.name for t in graph.defaults] == ["w"]
    assert all(t.constant is None for t in graph.inputs)
    assert round_trip(proto) == proto


def test_before_ir_4_a_listed_initializer_is_a_constant() -> None:
    proto = model(
        "g (float[2] x, float[2] w) => (float[2] y) { y = Add(x, w) }", {"w": np.ones(2, np.float32)}, opset=8
    )
    proto.ir_version = 3
    graph = import_model(proto).graph
    assert [t.name for t in graph.inputs] == ["x"]
    assert [t.name for t in graph.initializers] == ["w"]
    assert round_trip(proto) == proto


def test_unsorted_nodes_are_sorted_and_sorted_ones_keep_their_order() -> None:
    proto = model("g (float[1] x) => (float[1] y, float[1] z) { a = Relu(x) \n z = Abs(x) \n y = Neg(a) }")
    nodes = [proto.graph.node[i] for i in (2, 1, 0)]
    unsorted = ModelProto()
    unsorted.CopyFrom(proto)
    del unsorted.graph.node[:]
    unsorted.graph.node.extend(nodes)
    assert [n.op_type for n in round_trip(unsorted).graph.node] == ["Abs", "Relu", "Neg"]
    assert round_trip(proto) == proto


def test_a_body_may_read_what_a_later_node_of_the_outer_graph_makes_when_sorted() -> None:
    proto = parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[1] x, bool c) => (float[1] y) { b = Relu(x) \n'
        " y = If (c) <then_branch = t () => (float[1] a) { a = Neg(b) }, "
        "else_branch = e () => (float[1] a) { a = Abs(b) }> }"
    )
    swapped = ModelProto()
    swapped.CopyFrom(proto)
    first = NodeCopy(swapped, 0)
    del swapped.graph.node[0]
    swapped.graph.node.append(first)
    assert [n.op_type for n in round_trip(swapped).graph.node] == ["Relu", "If"]


def NodeCopy(proto: ModelProto, index: int) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(proto.graph.node[index])
    return copy


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("g (float[1] x) => (float[1] y) { y = Relu(nowhere) }", "nothing makes"),
        ("g (float[1] x) => (float[1] y) { y = Relu(x) \n y = Abs(x) }", "made twice"),
        ("g (float[1] x) => (float[1] x) { x = Relu(x) }", "made twice"),
        ("g (float[1] x) => (float[1] y) { y = Relu(a) \n a = Abs(y) }", "cycle"),
    ],
)
def test_broken_graphs_are_named(text: str, says: str) -> None:
    with pytest.raises(ModelError, match=says):
        round_trip(model(text))


def test_weights_are_not_read() -> None:
    proto = model(
        "g (float[1000,100] x) => (float[1000,100] y) { y = Add(x, w) }", {"w": np.ones((1000, 100), np.float32)}
    )
    imported = import_model(proto)
    export_model(imported)
    (tensor,) = imported.graph.initializers
    assert isinstance(tensor.constant, ProtoConstant)
    assert tensor.constant._cache is None


def test_a_shadowed_name_is_kept_where_it_does_no_harm() -> None:
    proto = model(
        "g (float[1] x, bool c) => (float[1] y) { b = Relu(x) \n"
        " y = If (c) <then_branch = t () => (float[1] a) { b = Neg(x) \n a = Abs(b) }, "
        "else_branch = e () => (float[1] a) { a = Abs(b) }> }"
    )
    assert round_trip(proto) == proto


@pytest.mark.parametrize(
    ("op_type", "name", "kind"),
    [
        ("Transpose", "perm", AttributeProto.INTS),
        ("Scan", "scan_output_axes", AttributeProto.INTS),
        ("Constant", "value_floats", AttributeProto.FLOATS),
        ("StringNormalizer", "stopwords", AttributeProto.STRINGS),
        ("Squeeze", "axes", AttributeProto.INTS),  # no attribute any more
        ("Unheard", "of", AttributeProto.INTS),
    ],
)
def test_an_empty_list_has_the_type_that_the_operator_says(op_type: str, name: str, kind: int) -> None:
    assert attribute_proto(name, (), op_type).type == kind
