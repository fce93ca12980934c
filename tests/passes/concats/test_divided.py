"""A 1x1 conv of a Concat as convs of its parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

import graphopt
from graphopt.targets import Target
from graphopt_passes.concats.divided import DivideConvOfConcat
from graphopt_passes.concats.summed import JoinSummedConvs
from tests.passes.vertical.weights import normal, used
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULE = DivideConvOfConcat()
ORT = Target.ONNXRUNTIME
WEIGHTS = {
    "w": normal(4, 5, 1, 1),
    "wx": normal(4, 2, 1, 1, seed=1),
    "wz": normal(4, 3, 1, 1, seed=2),
    "w3": normal(4, 5, 3, 3),
    "wg": normal(4, 1, 1, 1),
    "b": normal(4),
    "k": normal(2, 2, 6, 6, seed=3),
}
INPUTS = "float[2,2,6,6] x, float[2,3,6,6] z"
CONCAT = "c = Concat<axis=1>(x, z)"


def graph(text: str, inputs: str = INPUTS, outputs: str = "", opset: int = 17) -> ModelProto:
    text = f"g ({inputs}) => (float[A,B,C,D] y{outputs}) {{ {text} }}"
    return model(text, used(WEIGHTS, text), opset=opset)


@pytest.mark.parametrize("attributes", ["", "<strides=[2,2]>", "<pads=[1,0,1,2]>", '<auto_pad="SAME_UPPER">'])
def test_each_part_has_a_conv_of_its_own(attributes: str) -> None:
    before = graph(f"{CONCAT} y = Conv{attributes}(c, w, b)")
    convs = f"d = Conv{attributes}(x, w1, b1) e = Conv{attributes}(z, w2)"
    check_rewrite(RULE, before, f"g ({INPUTS}) => (float[A,B,C,D] y) {{ {convs} y = Add(d, e) }}", target=ORT)


def test_what_was_joined_is_not_divided_nor_the_reverse() -> None:
    """Both rules may be forced: the one that comes first stays, in a second run too."""
    rules = [DivideConvOfConcat(), JoinSummedConvs()]
    one = graph(f"{CONCAT} y = Conv(c, w, b)")
    several = graph("d = Conv(x, wx) e = Conv(z, wz, b) y = Add(d, e)")
    for before, kept in ((one, ["Conv", "Conv", "Add"]), (several, ["Concat", "Conv"])):
        forced = graphopt.optimize(before, target="onnxruntime", force=[rule.name for rule in rules]).model
        again = graphopt.optimize(forced, target="onnxruntime", force=[rule.name for rule in rules])
        assert sorted(n.op_type for n in forced.graph.node) == sorted(kept)
        check_numbers(before, forced, exact=False)
        assert again.model == forced


def test_without_bias_and_with_a_constant_part() -> None:
    before = graph("c = Concat<axis=-3>(z, k) y = Conv(c, w)", "float[2,3,6,6] z")
    check_rewrite(RULE, before, ["Conv", "Conv", "Add"], target=ORT)


@pytest.mark.parametrize(
    ("why", "before", "because"),
    [
        ("another axis", graph("c = Concat<axis=2>(x, x) y = Conv(c, w)", "float[2,5,3,6] x"), "Concat of channels"),
        ("the Concat is read elsewhere", graph(f"{CONCAT} y = Conv(c, w)", outputs=", float[E,F,G,H] c"),
         "feeds it alone"),
        ("a larger kernel", graph(f"{CONCAT} y = Conv<pads=[1,1,1,1]>(c, w3)"), "no 1x1 conv"),
        ("groups", graph("c = Concat<axis=1>(x, x) y = Conv<group=4>(c, wg)"), "no 1x1 conv"),
        ("a computed weight", graph(f"{CONCAT} y = Conv(c, v)", f"{INPUTS}, float[4,5,1,1] v"), "no 1x1 conv"),
        ("unknown widths", graph(f"{CONCAT} y = Conv(c, w)", "float[2,P,6,6] x, float[2,Q,6,6] z"), "unknown width"),
        ("many parts", graph("c = Concat<axis=1>(x, x, x, x, x) y = Conv(c, w)", "float[2,1,6,6] x"), "too many"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, before: ModelProto, because: str) -> None:
    check_untouched(RULE, before, because, target=ORT)


def test_tensorrt_writes_the_parts_side_by_side() -> None:
    check_untouched(RULE, graph(f"{CONCAT} y = Conv(c, w, b)"), "side by side", target=Target.TENSORRT)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=2, max_size=4),
    st.integers(1, 3),
    st.integers(1, 2),
    st.booleans(),
    st.booleans(),
)
def test_random_parts(widths: list[int], outputs: int, stride: int, bias: bool, same: bool) -> None:
    inputs = ", ".join(f"float[N,{w},4,5] x{i}" for i, w in enumerate(widths))
    names = [f"x{i}" for i in range(len(widths))]
    if same and widths[0] == widths[1]:
        names[1] = "x0"
    weights = {"w": normal(outputs, sum(widths), 1, 1), **({"b": normal(outputs)} if bias else {})}
    body = f"c = Concat<axis=1>({', '.join(names)}) y = Conv<strides=[{stride},1]>(c, w{', b' if bias else ''})"
    before = model(f"g ({inputs}) => (float[A,B,C,D] y) {{ {body} }}", weights)
    result, log = apply(RULE, before, ORT)
    assert len(log.applications) == 1
    assert np.prod([t.dims for t in result.graph.initializer if len(t.dims) == 4], axis=1).sum() == weights["w"].size
    check_numbers(before, result, exact=False)
