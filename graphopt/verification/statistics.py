"""BatchNormalization that trains, as ONNX Runtime runs it: the new running statistics are written over the old ones."""

from __future__ import annotations

from onnx import FunctionProto, GraphProto, ModelProto, NodeProto, helper

from graphopt.verification import source

_STATISTICS = (3, 4)  # the inputs `mean` and `var`


def with_own_statistics(proto: ModelProto) -> ModelProto:
    """A copy in which each norm that trains reads copies of its statistics; the model itself where none trains.

    Otherwise another node that reads the same tensor, and the next run of a session, may see the new statistics. The
    copy is a Concat of one tensor: ONNX Runtime passes the tensor itself through an Identity.
    """
    if not any(map(_is_training, source.nodes(proto))):
        return proto
    copy = ModelProto()
    copy.CopyFrom(proto)
    owners: list[GraphProto | FunctionProto] = [*copy.functions, *source.graphs(copy)]
    for number, owner in enumerate(reversed(owners)):  # bodies first: an owner's nodes are replaced
        _separate(owner, number)
    return copy


def _is_training(node: NodeProto) -> bool:
    is_norm = node.op_type == "BatchNormalization" and len(node.input) > max(_STATISTICS)
    return is_norm and sum(map(bool, node.output)) > 1


def _separate(owner: GraphProto | FunctionProto, number: int) -> None:
    nodes: list[NodeProto] = []
    for at, node in enumerate(owner.node):
        if _is_training(node):
            for place in _STATISTICS:
                own = f"{node.input[place]}::{place} of {at} in {number}"
                nodes.append(helper.make_node("Concat", [node.input[place]], [own], axis=0))
                node.input[place] = own
        nodes.append(node)
    if len(nodes) > len(owner.node):
        kept = [_copy(node) for node in nodes]
        del owner.node[:]
        owner.node.extend(kept)


def _copy(node: NodeProto) -> NodeProto:
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy
