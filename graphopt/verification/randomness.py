"""Which outputs of a model are drawn at random, so that their numbers cannot be compared."""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from graphopt.verification import source

_ALWAYS = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
)


def random_outputs(proto: onnx.ModelProto) -> set[str]:
    """The graph's outputs that depend on a random operator without a seed of its own.

    Random operators are the generators, Multinomial, Bernoulli, and Dropout where it trains or may train. What
    depends on one is followed through control-flow bodies and model-local functions; a node with a body depends on
    all that the body uses. An operator with the attribute `seed` gives the same numbers in each new session.
    Linear in the size of the graph.
    """
    thin = source.written_out(source.skeleton(proto))
    constants = _true_or_false(thin)
    opset = min((entry.version for entry in thin.opset_import if entry.domain in ("", "ai.onnx")), default=1)
    tainted: set[str] = set()
    for node in thin.graph.node:
        if any(
            _is_random(inner, constants, opset) or tainted.intersection(inner.input) for inner in _with_bodies(node)
        ):
            tainted.update(name for name in node.output if name)
    return tainted & {output.name for output in thin.graph.output}


def _with_bodies(node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
    stack = [node]
    while stack:
        inner = stack.pop()
        yield inner
        for body in source.bodies(inner):
            stack.extend(body.node)
            # a body may return an outer tensor as it is, without any node that reads it
            stack.append(onnx.NodeProto(input=[output.name for output in body.output]))


def _is_random(node: onnx.NodeProto, constants: dict[str, bool], opset: int) -> bool:
    if any(attribute.name == "seed" for attribute in node.attribute):
        return False
    if node.op_type in _ALWAYS:
        return True
    if node.op_type != "Dropout":
        return False
    if opset < 7:
        return not any(attribute.name == "is_test" and attribute.i for attribute in node.attribute)
    if len(node.input) > 2 and node.input[2]:  # training_mode, from opset 12 on
        return constants.get(node.input[2], True)
    return False


def _true_or_false(thin: onnx.ModelProto) -> dict[str, bool]:
    """The boolean scalars that are constant: initializers no input overrides, and Constant nodes."""
    found: dict[str, bool] = {}
    for graph in source.graphs(thin):
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        for node in graph.node:
            if node.op_type == "Constant" and node.output:
                tensors.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
        for name, tensor in tensors.items():
            if tensor.data_type == onnx.TensorProto.BOOL and not tensor.dims and not source.is_external(tensor):
                found[name] = bool(onnx.numpy_helper.to_array(tensor))
    for value in thin.graph.input:
        found.pop(value.name, None)
    return found
