"""Models in memory that no file could hold."""

from __future__ import annotations

from onnx import ModelProto, TensorProto, helper

from tests.graphopt.hostile.graphs import with_nodes


def thousand_graphs_in_each_other() -> ModelProto:
    """An If in an If, a thousand deep: built from the outside, since a body is copied into its node."""
    proto = with_nodes(helper.make_node("If", ["c"], ["y"]))
    proto.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    node = proto.graph.node[0]
    for level in range(1000):
        for name, kind in (("else_branch", "Neg"), ("then_branch", "If" if level < 999 else "Neg")):
            attribute = node.attribute.add(name=name, type=5)
            body = attribute.g
            body.name = "b"
            output = f"t{level}_{name}"
            body.output.append(helper.make_tensor_value_info(output, TensorProto.FLOAT, [4]))
            inner = body.node.add(op_type=kind, input=["c" if kind == "If" else "x"], output=[output])
        node = inner
    return proto
