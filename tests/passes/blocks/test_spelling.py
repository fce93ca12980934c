"""Blocks of a linear operator and an activation, in three spellings."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from graphopt import optimize
from graphopt.driver import run_rules
from graphopt.facts import Facts
from graphopt.graph import import_model
from graphopt.inference import infer_types
from graphopt.pipeline import Options
from graphopt.rewrite import Rewriter
from graphopt.rule import Rule
from graphopt.targets import Target
from graphopt_passes.blocks import SpellBlocks
from graphopt_passes.blocks.spelling import TAG, SpellBlockAsFunction, SpellBlockAsFusedConv, TagBlock
from tests.passes.vertical.weights import normal, used
from tests.support.models import model
from tests.support.rewrites import apply, apply_pass, check_numbers, check_untouched

WEIGHTS = {
    "w": normal(6, 6, 3, 3),
    "wt": normal(6, 6, 3, 3),
    "b": normal(6),
    "m": normal(9, 9),
    "mb": normal(9),
    "low": np.float32(0),
    "high": np.float32(6),
    "three": np.float32(3),
    "slope": normal(6, 1, 1),
    "half": np.float32(0.5),
    "one": np.float32(1),
    "root2": np.float32(2**0.5),
    "root": np.float32((2 / np.pi) ** 0.5),
    "cubic": np.float32(0.044715),
    "gm": normal(9, 7),
    "gb": normal(7),
}
CONV = "c = Conv<pads=[1,1,1,1]>(x, w, b)"


def graph(text: str, opset: int = 20, inputs: str = "float[2,6,9,9] x, float[2,6,9,9] r") -> ModelProto:
    text = f"graph ({inputs}) => (float[A,B,C,D] y) {{ {text} }}"
    return model(text, used(WEIGHTS, text), opset=opset)


BLOCKS = {
    "ConvRelu": f"{CONV} y = Relu(c)",
    "ConvClip": f"{CONV} y = Clip(c, low, high)",
    "ConvLeakyRelu": f"{CONV} y = LeakyRelu<alpha=0.2>(c)",
    "ConvPRelu": f"{CONV} y = PRelu(c, slope)",
    "ConvGelu": f"{CONV} y = Gelu(c)",
    "ConvMish": f"{CONV} y = Mish(c)",
    "ConvElu": f"{CONV} y = Elu(c)",
    "ConvSigmoid": f"{CONV} y = Sigmoid(c)",
    "ConvAddRelu": f"{CONV} s = Add(r, c) y = Relu(s)",
    "ConvTransposeTanh": "c = ConvTranspose<pads=[1,1,1,1]>(x, wt) y = Tanh(c)",
    "MatMulRelu": "p = MatMul(x, m) c = Add(p, mb) y = Relu(c)",
    "MatMulAddRelu": "p = MatMul(x, m) c = Add(p, mb) s = Add(c, r) y = Relu(s)",
    "ConvSwish": f"{CONV} s = Sigmoid(c) y = Mul(c, s)",
    "ConvSelu": f"{CONV} y = Selu(c)",
    "ConvSoftplus": f"{CONV} y = Softplus(c)",
    "ConvAddSwish": f"{CONV} s = Add(c, r) g = Sigmoid(s) y = Mul(g, s)",
    "ConvTransposeAddClip": "c = ConvTranspose<pads=[1,1,1,1]>(x, wt, b) s = Add(r, c) y = Clip(s, low, high)",
    "ConvHardSwish": f"{CONV} a = Add(c, three) k = Clip(a, low, high) p = Mul(c, k) y = Div(p, high)",
}
# activations that are spelled as arithmetic, each behind a Conv
COMPOSITE = {
    "ConvSwish": "s = Sigmoid(c) y = Mul(s, c)",
    "ConvHardSwish": "a = Add(c, three) k = Clip(a, low, high) d = Div(k, high) y = Mul(c, d)",
    "ConvGelu": "a = Div(c, root2) e = Erf(a) f = Add(e, one) p = Mul(c, f) y = Mul(p, half)",
    "ConvGelu by tanh": "p = Pow(c, three) q = Mul(p, cubic) u = Add(c, q) s = Mul(u, root) t = Tanh(s) "
    "v = Add(t, one) k = Mul(c, v) y = Mul(k, half)",
    "ConvMish": "s = Softplus(c) t = Tanh(s) y = Mul(c, t)",
}  # fmt: skip
ALL = [*BLOCKS.items(), *((name.partition(" ")[0], f"{CONV} {text}") for name, text in COMPOSITE.items())]


@pytest.mark.parametrize(("name", "text"), ALL)
def test_one_call_of_a_function(name: str, text: str) -> None:
    before = graph(text)
    result, log = apply(SpellBlockAsFunction(), before)
    (call,) = result.graph.node
    (function,) = result.functions
    assert call.op_type == function.name
    assert function.name.startswith(f"{name}_")
    assert len(log.applications) == 1
    originals = list(before.graph.node)
    assert len(log.applications[0].consumed) == len(originals)
    check_numbers(before, result, exact=True)
    again, second = apply(SpellBlockAsFunction(), result)
    assert again == result
    assert not second.applications


def test_equal_blocks_share_a_function() -> None:
    before = graph(f"{CONV} z = Relu(c) d = Conv<pads=[1,1,1,1]>(z, w, b) y = Relu(d)")
    result, _ = apply(SpellBlockAsFunction(), before)
    assert len(result.functions) == 1
    assert len(result.graph.node) == 2
    check_numbers(before, result, exact=True)


def test_a_gemm_is_a_block() -> None:
    text = "graph (float[3,9] x) => (float[A,B] y) { p = Gemm<transB=0>(x, gm, gb) y = Gelu(p) }"
    before = model(text, used(WEIGHTS, text), opset=20)
    result, _ = apply(SpellBlockAsFunction(), before)
    assert [n.op_type.partition("_")[0] for n in result.graph.node] == ["GemmGelu"]
    check_numbers(before, result, exact=True)


@pytest.mark.parametrize(("name", "text"), ALL)
def test_a_function_names_all_that_it_was_made_of(name: str, text: str) -> None:
    before = graph(text)
    for i, node in enumerate(before.graph.node):
        node.name = f"{node.op_type}_{i}"
    (call,) = optimize(before, pipeline="spell-blocks", block="function", verify=False).model.graph.node
    (entry,) = (e.value for e in call.metadata_props if e.key.endswith("from"))
    assert set(json.loads(entry)) == {node.name for node in before.graph.node}


def test_tensorrt_takes_functions() -> None:
    pytest.importorskip("tensorrt_rtx")
    from graphopt.tensorrt import check_parse

    for name, text in ALL:
        result, _ = apply(SpellBlockAsFunction(), graph(text))
        report = check_parse(result)
        assert report.accepted, f"{name}: {report}"


@pytest.mark.parametrize(("name", "text"), ALL)
def test_nodes_carry_their_block(name: str, text: str) -> None:
    before = graph(text)
    result, _ = apply(TagBlock(), before)
    tags = [{e.key: e.value for e in n.metadata_props}.get(TAG) for n in result.graph.node]
    assert len(set(tags)) == 1
    assert str(tags[0]).startswith(f"{name}:")
    assert apply(TagBlock(), result)[0] == result
    for node in result.graph.node:
        del node.metadata_props[:]
    assert result == before


FUSED = ["ConvRelu", "ConvClip", "ConvLeakyRelu", "ConvSigmoid", "ConvAddRelu"]


@pytest.mark.parametrize("name", FUSED)
def test_one_fused_operator(name: str) -> None:
    before = graph(BLOCKS[name])
    result, log = apply(SpellBlockAsFusedConv(), before, Target.ONNXRUNTIME)
    assert [(n.domain, n.op_type) for n in result.graph.node] == [("com.microsoft", "FusedConv")]
    assert len(log.applications) == 1
    check_numbers(before, result, exact=False)


def test_only_onnx_runtime_has_the_fused_operator() -> None:
    check_untouched(SpellBlockAsFusedConv(), graph(BLOCKS["ConvRelu"]), "take --target onnxruntime")


def test_functions_need_ir_version_8() -> None:
    before = graph(BLOCKS["ConvRelu"], opset=13)
    before.ir_version = 7
    check_untouched(SpellBlockAsFunction(), before, "IR version 8")


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("two readers", f"{CONV} a = Relu(c) y = Add(a, c)"),
        ("computed weights", "q = Neg(v) c = Conv<pads=[1,1,1,1]>(x, q) y = Relu(c)"),
        ("a computed bound", f"{CONV} k = ReduceMax<keepdims=0>(r) y = Clip(c, low, k)"),
        ("no activation", f"{CONV} y = Exp(c)"),
        ("a pool between", f"{CONV} p = MaxPool<kernel_shape=[1,1]>(c) y = Relu(p)"),
    ],
)
def test_what_is_no_block(why: str, text: str) -> None:
    proto = graph(text, inputs="float[2,6,9,9] x, float[2,6,9,9] r, float[6,6,3,3] v")
    check_untouched((TagBlock(), SpellBlockAsFunction()), proto)
    check_untouched(SpellBlockAsFusedConv(), proto, target=Target.ONNXRUNTIME)


@pytest.mark.parametrize(
    ("why", "text"),
    [
        ("a residual that broadcasts", f"{CONV} s = Add(c, t) y = Relu(s)"),
        ("one bound", f"{CONV} y = Clip(c, low)"),
        ("no such activation", f"{CONV} y = Elu(c)"),
    ],
)
def test_what_no_fused_operator_computes(why: str, text: str) -> None:
    proto = graph(text, inputs="float[2,6,9,9] x, float[1,6,1,1] t")
    check_untouched(SpellBlockAsFusedConv(), proto, target=Target.ONNXRUNTIME)


def test_the_pass_spells_as_it_is_asked() -> None:
    before = graph(BLOCKS["ConvRelu"])
    assert apply_pass(SpellBlocks(), before)[0] == before  # nothing else was changed
    function, _ = apply_pass(SpellBlocks(), before, Options(block="function"))
    assert len(function.functions) == 1
    fused, _ = apply_pass(SpellBlocks(), before, Options(block="fused", target=Target.ONNXRUNTIME))
    assert fused.graph.node[0].op_type == "FusedConv"


def test_a_changed_model_is_tagged_and_names_what_blocks_are_made_of() -> None:
    text = f"{CONV} k = Mul(c, slope) y = Relu(k)"
    plain = optimize(graph(text)).model
    assert all(TAG in {e.key for e in n.metadata_props} for n in plain.graph.node)
    named = graph(text)
    for node, name in zip(named.graph.node, ("conv", "scale", "act"), strict=True):
        node.name = name
    (call,) = optimize(named, block="function").model.graph.node
    sources = next(e.value for e in call.metadata_props if e.key.endswith("from"))
    assert set(json.loads(sources)) == {"conv", "scale", "act"}


def test_the_function_spelling_passes_the_checker() -> None:
    result, _ = apply(SpellBlockAsFunction(), graph(BLOCKS["ConvHardSwish"]))
    onnx.checker.check_model(result, full_check=True)
    inlined = onnx.inliner.inline_local_functions(result)
    assert [n.op_type for n in inlined.graph.node if n.op_type != "Constant"] == ["Conv", "Add", "Clip", "Mul", "Div"]


@pytest.mark.parametrize("rule", [SpellBlockAsFunction(), SpellBlockAsFusedConv()])
def test_a_spelling_that_is_taken_back_leaves_no_function_and_no_import(rule: Rule[Any]) -> None:
    graph_of = import_model(graph(BLOCKS["ConvRelu"]))
    infer_types(graph_of)
    edit = Rewriter(graph_of, judges=[lambda change: "no"])
    run_rules([rule], Facts(graph_of, Target.ONNXRUNTIME), edit)
    assert not edit.log.applications
    assert not graph_of.functions
    assert set(graph_of.opsets) == {""}
