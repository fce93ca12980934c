"""The three spellings of a block: tagged nodes, one call of a model-local function, one fused operator."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

from onnx import FunctionProto, NodeProto, TensorProto, helper

from graphopt.facts import Facts
from graphopt.graph import Node, Tensor, import_function
from graphopt.graph.exporter import attribute_proto
from graphopt.rewrite import Rewriter
from graphopt.rule import Exactness, NoMatch, Refused, Rule
from graphopt.targets import Target
from graphopt_passes.blocks.chains import ENDS, Block, block_at
from graphopt_passes.blocks.terms import clip_at

TAG = "graphopt.block"
DOMAIN = "graphopt.block"
# Model-local functions: ONNX IR.md, version 8.
_FUNCTIONS_IR = 8
# Constants up to this many bytes are part of the function, not its inputs.
_INNER_BYTES = 64


class _Spell(Rule[Block]):
    """A block in another spelling; its numbers stay."""

    roots = ENDS

    def match(self, node: Node, facts: Facts) -> Block | NoMatch:
        block = block_at(node, facts)
        if block is None:
            return NoMatch("it ends no block of a linear operator and an activation", node)
        if TAG in node.metadata or (node.proto is not None and any(e.key == TAG for e in node.proto.metadata_props)):
            return NoMatch("the block is tagged already", node)
        return self.problem(block, facts) or block

    def problem(self, block: Block, facts: Facts) -> NoMatch | None:
        """What keeps this block from this spelling."""
        return None


class TagBlock(_Spell):
    """act(linear(x) + r): all of its nodes carry the block's name in their metadata; nothing else changes.

    linear is Conv, ConvTranspose, Gemm or MatMul with constant weights, and the Add of its bias; r a residual, if any;
    act an activation, also one spelled as arithmetic.

    Opsets: all. Exactness: exact.
    """

    def rewrite(self, found: Block, edit: Rewriter) -> None:
        for node in found.nodes:
            edit.tag(node, TAG, f"{found.name}:{found.linear.label}")


class SpellBlockAsFunction(_Spell):
    """act(linear(x) + r) = f(x, W, b, r), f a model-local function that holds the same nodes.

    Small constants (a Clip's bounds, a slope) are Constant nodes in f; weights are its inputs. Equal blocks share one
    function.

    Opsets: all; IR version 8 on. Exactness: exact. Source: ONNX IR.md, Functions.
    """

    def problem(self, block: Block, facts: Facts) -> NoMatch | None:
        if facts.model.ir_version < _FUNCTIONS_IR:
            version = facts.model.ir_version
            return Refused(f"model-local functions need IR version {_FUNCTIONS_IR}; this is {version}", block.last)
        if block.last.owner.opsets is not facts.model.opsets:
            return NoMatch("it is in a function itself", block.last)
        return None

    def rewrite(self, found: Block, edit: Rewriter) -> None:
        function, inputs = function_of(found)
        edit.add_function(import_function(edit.model, function))
        edit.add_import(DOMAIN, 1)
        call = edit.node(function.name, inputs, domain=DOMAIN, name=found.last.name)
        call.op = f"function::{DOMAIN}::{function.name}"
        edit.replace(found.last, call)


def function_of(block: Block) -> tuple[FunctionProto, list[Tensor | None]]:
    """The function that computes the block, and what a call passes to it. Its name tells its content."""
    names: dict[Tensor, str] = {}
    inputs: list[Tensor | None] = []
    body: list[NodeProto] = []
    made = {t for node in block.nodes for t in node.outputs}

    def name(tensor: Tensor | None) -> str:
        if tensor is None:
            return ""
        if tensor not in names:
            constant = tensor.constant
            if tensor in made:
                names[tensor] = f"t{len(names)}"
            elif constant is not None and constant.nbytes <= _INNER_BYTES and tensor not in block.linear.inputs:
                names[tensor] = f"c{len(names)}"
                body.append(helper.make_node("Constant", [], [names[tensor]], value=constant.to_proto("value")))
            else:
                names[tensor] = f"x{len(inputs)}"
                inputs.append(tensor)
        return names[tensor]

    for node in block.nodes:
        proto = helper.make_node(node.op_type, [name(t) for t in node.inputs], [name(node.result)])
        proto.attribute.extend(attribute_proto(k, v, node.op_type) for k, v in sorted(node.attrs.items()))
        body.append(proto)
    opset = helper.make_opsetid("", block.last.owner.opset)
    arguments = [names[t] for t in inputs if t is not None]
    function = helper.make_function(DOMAIN, block.name, arguments, [names[block.last.result]], body, [opset])
    digest = hashlib.sha256(function.SerializeToString(deterministic=True)).hexdigest()[:8]
    function.name = f"{block.name}_{digest}"
    return function, inputs


@dataclass(frozen=True)
class FusedBlock:
    """A block that FusedConv computes: `parameters` are those of its `activation`."""

    block: Block
    activation: str
    parameters: tuple[float, ...]


class SpellBlockAsFusedConv(Rule[FusedBlock]):
    """act(Conv(x, W, b) + r) = com.microsoft::FusedConv(x, W, b, r, activation=act), fp32, r of the Conv's shape.

    act is Relu, Sigmoid, Tanh, LeakyRelu, HardSigmoid or Clip.

    Opsets: 11 on; only for ONNX Runtime. Exactness: reassociates (the sum with r is rounded
    within the kernel). Source: ONNX Runtime, docs/ContribOperators.md.
    """

    roots = ("Relu", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid", "Clip")
    exactness = Exactness.REASSOCIATES

    def match(self, node: Node, facts: Facts) -> FusedBlock | NoMatch:
        block = block_at(node, facts)
        if block is None or block.linear.op != "Conv":
            return NoMatch("it ends no block of a Conv and an activation", node)
        if facts.target is not Target.ONNXRUNTIME:
            return Refused("only ONNX Runtime has FusedConv: take --target onnxruntime", node)
        if node.result.dtype != TensorProto.FLOAT or facts.opset(node) < 11:
            return NoMatch("FusedConv is for float32 and opset 11 on", node)
        if block.last.owner.opsets is not facts.model.opsets:
            return NoMatch("it is in a function, whose imports are its own", node)
        if block.residual is not None and not facts.same_shape(block.residual, block.linear.result):
            return NoMatch("the residual may not have the shape of the Conv's result", node)
        parameters = _parameters(node, facts)
        return NoMatch("its bounds are not known", node) if parameters is None else FusedBlock(block, *parameters)

    def rewrite(self, found: FusedBlock, edit: Rewriter) -> None:
        conv, block = found.block.linear, found.block
        attrs: dict[str, Any] = {**conv.attrs, "activation": found.activation}
        if found.parameters:
            attrs["activation_params"] = list(found.parameters)
        edit.add_import("com.microsoft", 1)
        inputs = [conv.inputs[0], conv.inputs[1], conv.input(2), block.residual]
        edit.replace(block.last, edit.node("FusedConv", inputs, attrs, domain="com.microsoft", name=block.last.name))


def _parameters(node: Node, facts: Facts) -> tuple[str, tuple[float, ...]] | None:
    """FusedConv's name of the activation, and its numbers."""
    if node.op == "LeakyRelu":
        return node.op, (node.float_attr("alpha", 0.01),)
    if node.op == "HardSigmoid":
        return node.op, (node.float_attr("alpha", 0.2), node.float_attr("beta", 0.5))
    if node.op == "Clip":
        clip = clip_at(node, facts)
        if (
            clip is None
            or clip.data is not node.input(0)
            or not math.isfinite(clip.low)
            or not math.isfinite(clip.high)
        ):
            return None
        return node.op, (clip.low, clip.high)
    return node.op, ()
