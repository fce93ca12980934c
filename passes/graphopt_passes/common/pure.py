"""Which operators give the same result whenever they are given the same inputs."""

from __future__ import annotations

from graphopt.facts import Facts
from graphopt.graph import Node

RANDOM = frozenset(
    ("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli")
)
_KNOWN_DOMAINS = ("", "ai.onnx.ml")


def is_inference_dropout(node: Node, facts: Facts) -> bool:
    """Whether a Dropout surely keeps every element.

    Opset 1 and 6: where `is_test` is 1. 7 and 10: always, they have no training form. 12 on: where `training_mode` is
    absent or constant false, or `ratio` is constant 0 (ONNX, operator Dropout).
    """
    opset = facts.opset(node)
    if opset < 7:
        return node.int_attr("is_test", 0) == 1
    if opset < 12:
        return True
    training = node.input(2)
    if training is None or facts.scalar(training) is False:
        return True
    ratio = node.input(1)
    return ratio is not None and facts.scalar(ratio) == 0


def is_pure(node: Node, facts: Facts) -> bool:
    """Whether equal inputs surely give equal outputs: a standard operator, not random, without bodies.

    Operators of unknown domains, or that the standard lacks, may keep a state; calls of functions and attributes of
    functions are not looked into.
    """
    if node.domain not in _KNOWN_DOMAINS or node.bodies or node.op in RANDOM:
        return False
    if node.op.startswith(("attr-ref::", "function::", "unknown::")):
        return False
    return node.op != "Dropout" or is_inference_dropout(node, facts)
