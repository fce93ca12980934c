"""Convs that become grouped convs or one conv on several tensors; operators below a Concat."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from graphopt.targets import Target
from graphopt_passes.concats.dead_channels import DropDeadChannels
from graphopt_passes.concats.focus import FocusToSpaceToDepth, FoldFocusIntoConv
from graphopt_passes.concats.grouped import GroupConvs, GroupDistantConvs
from graphopt_passes.concats.permuted import PermutedPartsToGather
from graphopt_passes.concats.reductions import ReduceBeforeConcat
from graphopt_passes.concats.sinking import SinkBelowConcat
from graphopt_passes.concats.summed import JoinSummedConvs
from tests.support.models import model
from tests.support.rewrites import check_rewrite, check_untouched

RNG = np.random.default_rng(3)
INTS = {
    **{f"i{n}": np.array([n], np.int64) for n in range(10)},
    "end": np.array([np.iinfo(np.int64).max], np.int64),
    "hw": np.array([2, 3], np.int64),
    "two": np.array([2, 2], np.int64),
    **{f"p{r}{c}": np.array([r, c], np.int64) for r in (0, 1) for c in (0, 1)},
    "ends": np.array([100, 100], np.int64),
    "s33": np.array([3, 3], np.int64),
    "s24": np.array([2, 4], np.int64),
    "s222": np.array([2, 2, 2], np.int64),
}


def graph(text: str, *, opset: int = 17, **shapes: tuple[int, ...]) -> ModelProto:
    """The model of `text`, with the constants that it names; `shapes` gives random weights."""
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    weights = {k: v for k, v in INTS.items() if k in words}
    weights |= {k: RNG.standard_normal(s).astype(np.float32) for k, s in shapes.items()}
    return model(f"g {text}", weights, opset=opset)


SPLIT = "p, q = Split<axis=1>(x, s33)"
SLICES = "p = Slice(x, i0, i3, i1) \n q = Slice(x, i3, end, i1)"
PADS = "<pads=[1,1,1,1]>"


# -- grouped convs ---


@pytest.mark.parametrize("cut", [SPLIT, SLICES])
@pytest.mark.parametrize("bias", ["none", "first", "both"])
@pytest.mark.parametrize("behind", ["", "relu", "silu", "scale"])
def test_convs_on_parts_become_a_grouped_conv(cut: str, bias: str, behind: str) -> None:
    first = "(p, v, b)" if bias != "none" else "(p, v)"
    second = "(q, w, d)" if bias == "both" else "(q, w)"
    ends = {
        "": "e = Identity(c) \n f = Identity(h)",
        "relu": "e = Relu(c) \n f = Relu(h)",
        "silu": "g = Sigmoid(c) \n e = Mul(c, g) \n k = Sigmoid(h) \n f = Mul(h, k)",
        "scale": "e = Mul(c, m) \n f = Mul(h, n)",
    }[behind]
    text = f"{cut} \n c = Conv{PADS}{first} \n h = Conv{PADS}{second} \n {ends} \n y = Concat<axis=1>(e, f)"
    if not behind:
        text = text.replace("e = Identity(c) \n f = Identity(h)", "").replace("(e, f)", "(c, h)")
    shapes: dict[str, tuple[int, ...]] = {"v": (4, 3, 3, 3), "w": (4, 3, 3, 3)}
    shapes |= {"b": (4,)} if bias != "none" else {}
    shapes |= {"d": (4,)} if bias == "both" else {}
    shapes |= {"m": (4, 1, 1), "n": (4, 1, 1)} if behind == "scale" else {}
    left = {"": [], "relu": ["Relu"], "silu": ["Mul", "Sigmoid"], "scale": ["Mul"]}[behind]
    before = graph(f"(float[1,6,5,5] x) => (float[1,8,5,5] y) {{ {text} }}", **shapes)
    after = check_rewrite(GroupConvs(), before, ["Conv", *left])
    conv = next(n for n in after.graph.node if n.op_type == "Conv")
    assert {a.name: a.i for a in conv.attribute}["group"] == 2


def test_depthwise_and_grouped_convs_of_unequal_width_keep_their_groups() -> None:
    check_rewrite(
        GroupConvs(),
        graph(
            "(float[1,6,5,5] x) => (float[1,12,5,5] y) { p, q = Split<axis=1>(x, s24) \n "
            "c = Conv<group=2>(p, v) \n d = Conv<group=4>(q, w) \n y = Concat<axis=1>(c, d) }".replace(
                "5,5] y", "3,3] y"
            ),
            v=(4, 1, 3, 3),
            w=(8, 1, 3, 3),
        ),
        ["Conv"],
    )


def test_a_run_in_the_middle_of_a_concat_and_of_the_tensor() -> None:
    check_rewrite(
        GroupConvs(),
        graph(
            "(float[1,6,5,5] x, float[1,2,5,5] z) => (float[1,A,5,5] y) { "
            "p = Slice(x, i2, i4, i1) \n q = Slice(x, i4, i6, i1) \n c = Conv(p, v) \n d = Conv(q, w) \n "
            "y = Concat<axis=-3>(z, c, d, z) }",
            v=(1, 2, 1, 1),
            w=(1, 2, 1, 1),
        ),
        ["Slice", "Conv", "Concat"],
    )


GROUPED = (
    "(float[1,6,5,5] x) => (float[A,B,C,D] y) {{ p, q = Split<axis=1>(x, s33) \n "
    "c = Conv{one}(p, v) \n d = Conv{two}(q, w) \n y = Concat<axis={axis}>({order}) }}"
)


@pytest.mark.parametrize(
    ("why", "changes", "v", "w"),
    [
        ("other strides", {"two": "<strides=[2,2], pads=[2,2,2,2]>"}, (4, 3, 1, 1), (4, 3, 1, 1)),
        ("other dilations", {"two": "<dilations=[2,2], pads=[2,2,2,2]>", "one": PADS}, (4, 3, 3, 3), (4, 3, 3, 3)),
        ("other kernels", {"two": PADS}, (4, 3, 1, 1), (4, 3, 3, 3)),
        ("unequal outputs", {}, (4, 3, 1, 1), (2, 3, 1, 1)),
        ("the batch axis", {"axis": 0}, (4, 3, 1, 1), (4, 3, 1, 1)),
        ("other order", {"order": "d, c"}, (4, 3, 1, 1), (4, 3, 1, 1)),
        ("groups whose parts have other widths", {"one": "<group=3>"}, (3, 1, 1, 1), (3, 3, 1, 1)),
    ],
)  # fmt: skip
def test_unequal_convs_stay(why: str, changes: dict[str, str], v: tuple[int, ...], w: tuple[int, ...]) -> None:
    text = GROUPED.format(**{"one": "", "two": "", "axis": 1, "order": "c, d", **changes})
    check_untouched(GroupConvs(), graph(text, v=v, w=w))


@pytest.mark.parametrize(
    ("why", "body", "outputs"),
    [
        ("a conv is an output", "c = Conv(p, v) \n d = Conv(q, w) \n y = Concat<axis=1>(c, d)",
         "float[1,8,5,5] y, float[1,4,5,5] c"),
        ("a conv is read elsewhere", "c = Conv(p, v) \n d = Conv(q, w) \n y = Concat<axis=1>(c, d) \n z = Neg(d)",
         "float[1,8,5,5] y, float[1,4,5,5] z"),
        ("a weight is computed", "u = Mul(s, v) \n c = Conv(p, u) \n d = Conv(q, w) \n y = Concat<axis=1>(c, d)",
         "float[1,8,5,5] y"),
        ("other activations", "c = Conv(p, v) \n d = Conv(q, w) \n e = Relu(c) \n f = Tanh(d) \n "
         "y = Concat<axis=1>(e, f)", "float[1,8,5,5] y"),
    ],
)  # fmt: skip
def test_convs_that_others_read_stay(why: str, body: str, outputs: str) -> None:
    text = f"(float[1,6,5,5] x, float s) => ({outputs}) {{ {SPLIT} \n {body} }}"
    check_untouched(GroupConvs(), graph(text, v=(4, 3, 1, 1), w=(4, 3, 1, 1)))


def test_an_overridable_weight_stays() -> None:
    text = GROUPED.format(one="", two="", axis=1, order="c, d").replace("x) =>", "x, float[4,3,1,1] v) =>")
    check_untouched(GroupConvs(), graph(text, v=(4, 3, 1, 1), w=(4, 3, 1, 1)))


def test_convs_on_different_tensors() -> None:
    text = (
        "(float[1,3,5,5] a, float[1,3,5,5] b) => (float[1,4,5,5] y) "
        "{ c = Conv(a, v) \n d = Conv(b, w) \n y = Concat<axis=1>(c, d) }"
    )
    before = graph(text, v=(2, 3, 1, 1), w=(2, 3, 1, 1))
    check_rewrite(GroupDistantConvs(), before, ["Concat", "Conv"])
    check_untouched(GroupConvs(), before)


def test_convs_on_tensors_of_different_size_stay_though_their_results_agree() -> None:
    """With stride 2 an input of 5 and one of 6 both give 3."""
    text = (
        "(float[1,3,5,5] a, float[1,3,6,6] b) => (float[1,4,3,3] y) "
        "{ c = Conv<strides=[2,2]>(a, v) \n d = Conv<strides=[2,2]>(b, w) \n y = Concat<axis=1>(c, d) }"
    )
    check_untouched(GroupDistantConvs(), graph(text, v=(2, 3, 1, 1), w=(2, 3, 1, 1)))


# -- summed convs ---


def test_convs_that_are_added() -> None:
    text = """(float[1,3,5,5] a, float[1,2,5,5] b, float[1,4,5,5] r) => (float[1,4,5,5] y) {
        c = Conv<pads=[1,1,1,1]>(a, v, m)
        d = Conv<pads=[1,1,1,1]>(b, w)
        e = Conv<pads=[1,1,1,1]>(r, u, n)
        s = Add(c, r)
        t = Add(d, e)
        y = Add(s, t) }"""
    before = graph(text, v=(4, 3, 3, 3), w=(4, 2, 3, 3), u=(4, 4, 3, 3), m=(4,), n=(4,))
    check_rewrite(JoinSummedConvs(), before, ["Concat", "Conv", "Add"], target=Target.ONNXRUNTIME)
    check_untouched(JoinSummedConvs(), before, because="joining a few saves nothing")


def test_many_convs_that_are_added_are_joined_for_tensorrt_too() -> None:
    lines = [f"c{i} = Conv(x{i}, w{i})" for i in range(4)]
    lines += ["s1 = Add(c0, c1)", "s2 = Add(s1, c2)", "y = Add(s2, c3)"]
    inputs = ", ".join(f"float[1,{i + 1},5,5] x{i}" for i in range(4))
    text = f"({inputs}) => (float[1,3,5,5] y) {{ " + "\n".join(lines) + " }"
    before = graph(text, **{f"w{i}": (3, i + 1, 1, 1) for i in range(4)})
    check_rewrite(JoinSummedConvs(), before, ["Concat", "Conv"])


@pytest.mark.parametrize(
    ("why", "text", "v", "w"),
    [
        ("one tensor", "c = Conv(a, v) \n d = Conv(a, w) \n y = Add(c, d)", (4, 3, 1, 1), (4, 3, 1, 1)),
        ("one is broadcast", "c = Conv(a, v) \n d = Conv(b, w) \n y = Add(c, d)", (4, 3, 1, 1), (1, 3, 1, 1)),
        ("other kernels", "c = Conv<pads=[1,1,1,1]>(a, v) \n d = Conv(b, w) \n y = Add(c, d)", (4, 3, 3, 3),
         (4, 3, 1, 1)),
        ("groups", "c = Conv<group=3>(a, v) \n d = Conv(b, w) \n y = Add(c, d)", (3, 1, 1, 1), (3, 3, 1, 1)),
        ("read elsewhere", "c = Conv(a, v) \n d = Conv(b, w) \n e = Add(c, d) \n y = Mul(e, c)", (4, 3, 1, 1),
         (4, 3, 1, 1)),
    ],
)  # fmt: skip
def test_other_sums_stay(why: str, text: str, v: tuple[int, ...], w: tuple[int, ...]) -> None:
    before = f"(float[1,3,5,5] a, float[1,3,5,5] b) => (float[A,B,C,D] y) {{ {text} }}"
    check_untouched(JoinSummedConvs(), graph(before, v=v, w=w), target=Target.ONNXRUNTIME)


# -- below the Concat ---


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("a = Relu(p) \n b = Relu(q)", ["Split", "Concat", "Relu"]),
        ("a = LeakyRelu<alpha=0.3>(p) \n b = LeakyRelu<alpha=0.3>(q)", ["Split", "Concat", "LeakyRelu"]),
        ("a = Mul(p, m) \n b = Mul(q, n)", ["Split", "Concat", "Mul"]),
        ("a = BatchNormalization(p, m0, m0, m0, v0) \n b = BatchNormalization(q, n0, n0, n0, v0)",
         ["Split", "Concat", "BatchNormalization"]),
        ("s = Sigmoid(p) \n a = Mul(p, s) \n t = Sigmoid(q) \n b = Mul(t, q)", ["Split", "Concat", "Sigmoid", "Mul"]),
    ],
)  # fmt: skip
def test_equal_operators_sink(body: str, left: list[str]) -> None:
    before = graph(f"(float[1,6,4] x) => (float[1,6,4] y) {{ {SPLIT} \n {body} \n y = Concat<axis=1>(a, b) }}")
    for name in ("m", "n"):
        before.graph.initializer.extend(graph("() => () {}", **{name: (3, 1), f"{name}0": (3,)}).graph.initializer)
    before.graph.initializer.extend(model("g () => () {}", {"v0": np.full(3, 2.0, np.float32)}).graph.initializer)
    used = {i for n in before.graph.node for i in n.input}
    kept = [t for t in before.graph.initializer if t.name in used]
    del before.graph.initializer[:]
    before.graph.initializer.extend(kept)
    check_rewrite(SinkBelowConcat(), before, left)


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("other operators", "a = Relu(p) \n b = Tanh(q) \n y = Concat<axis=1>(a, b)"),
        ("other attributes", "a = LeakyRelu<alpha=0.3>(p) \n b = LeakyRelu<alpha=0.2>(q) \n y = Concat<axis=1>(a, b)"),
        ("one input has none", "a = Relu(p) \n y = Concat<axis=1>(a, q)"),
        ("read elsewhere", "a = Relu(p) \n b = Relu(q) \n c = Concat<axis=1>(a, b) \n d = Concat<axis=1>(b, a) \n "
         "y = Add(c, d)"),
        ("along the axis it is not point-wise", "a = Softmax<axis=1>(p) \n b = Softmax<axis=1>(q) \n "
         "y = Concat<axis=1>(a, b)"),
        ("the result is broadcast", "a = Mul(p, k) \n b = Mul(q, k) \n y = Concat<axis=1>(a, b)"),
    ],
)  # fmt: skip
def test_unequal_operators_stay(why: str, body: str) -> None:
    text = f"(float[1,6,4] x) => (float[A,B,C] y) {{ {SPLIT} \n {body} }}"
    check_untouched(SinkBelowConcat(), graph(text, **({"k": (2, 3, 4)} if "k)" in body else {})))


# -- reductions ---


@pytest.mark.parametrize(
    ("op", "shape", "opset"),
    [
        ("GlobalAveragePool(c)", "float[1,A,1,1]", 17),
        ("GlobalMaxPool(c)", "float[1,A,1,1]", 17),
        ("ReduceMean<axes=[2,-1]>(c)", "float[1,A,1,1]", 17),
        ("ReduceMean<axes=[0,2], keepdims=0>(c)", "float[A,5]", 17),
        ("ReduceSum<keepdims=0>(c, hw)", "float[1,A]", 13),
        ("ReduceMax<keepdims=0>(c, hw)", "float[1,A]", 18),
    ],
)
def test_reductions_go_first(op: str, shape: str, opset: int) -> None:
    text = f"(float[1,2,5,5] a, float[1,3,5,5] b) => ({shape} y) {{ c = Concat<axis=1>(a, b) \n y = {op} }}"
    name = op.partition("(")[0].partition("<")[0]
    before = graph(text, opset=opset)
    check_rewrite(ReduceBeforeConcat(), before, [name, name, "Concat"], target=Target.ONNXRUNTIME)
    check_untouched(ReduceBeforeConcat(), before, because="TensorRT")


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("over the Concat's axis", "c = Concat<axis=1>(a, a) \n y = ReduceMean<axes=[1,2]>(c)"),
        ("over all axes", "c = Concat<axis=1>(a, a) \n y = ReduceMean(c)"),
        ("the pooled axis", "c = Concat<axis=2>(a, a) \n y = GlobalAveragePool(c)"),
        ("the Concat is read elsewhere", "c = Concat<axis=1>(a, a) \n d = GlobalAveragePool(c) \n y = Mul(c, d)"),
    ],
)
def test_other_reductions_stay(why: str, body: str) -> None:
    text = f"(float[1,2,5,5] a) => (float[A,B,C,D] y) {{ {body} }}"
    check_untouched(ReduceBeforeConcat(), graph(text), target=Target.ONNXRUNTIME)


# -- Focus ---


def focus_text(order: list[str], two_steps: bool) -> str:
    if not two_steps:
        parts = "\n".join(f"f{k} = Slice(x, {p}, ends, hw, two)" for k, p in enumerate(order))
    else:
        rows = "r0 = Slice(x, i0, end, i2, i2) \n r1 = Slice(x, i1, end, i2, i2)"
        parts = rows + "\n" + "\n".join(f"f{k} = Slice(r{p[1]}, i{p[2]}, end, i3, i2)" for k, p in enumerate(order))
    return f"{parts} \n c = Concat<axis=1>(f0, f1, f2, f3)"


YOLO = ["p00", "p10", "p01", "p11"]
DEPTH = ["p00", "p01", "p10", "p11"]


@pytest.mark.parametrize("order", [YOLO, DEPTH, ["p11", "p00", "p10", "p01"]])
@pytest.mark.parametrize("two_steps", [False, True])
@pytest.mark.parametrize(
    ("attributes", "kernel"),
    [("pads=[1,1,1,1]", 3), ("pads=[0,1,2,1], strides=[2,1]", 3), ("auto_pad=\"SAME_UPPER\"", 3), ("group=1", 1)],
)  # fmt: skip
def test_focus_folds_into_the_conv(order: list[str], two_steps: bool, attributes: str, kernel: int) -> None:
    body = f"{focus_text(order, two_steps)} \n y = Conv<{attributes}>(c, w, b)"
    text = f"(float[2,3,8,6] x) => (float[A,B,C,D] y) {{ {body} }}"
    before = graph(text, w=(5, 12, kernel, kernel), b=(5,))
    check_rewrite(FoldFocusIntoConv(), before, ["Conv"])


def test_focus_of_an_unknown_size_folds_too() -> None:
    text = f"(float[2,3,H,W] x) => (float[A,B,C,D] y) {{ {focus_text(YOLO, True)} \n y = Conv<pads=[1,1,1,1]>(c, w) }}"
    check_rewrite(FoldFocusIntoConv(), graph(text, w=(5, 12, 3, 3)), ["Conv"], H=6, W=8)


def test_focus_in_order_is_space_to_depth() -> None:
    text = "(float[2,3,8,6] x) => (float[A,B,C,D] c) {{ {} }}"
    check_rewrite(FocusToSpaceToDepth(), graph(text.format(focus_text(DEPTH, True))), ["SpaceToDepth"])
    check_untouched(FocusToSpaceToDepth(), graph(text.format(focus_text(YOLO, True))), because="in order")


@pytest.mark.parametrize(
    ("why", "parts", "attributes"),
    [
        ("one phase twice", ["p00", "p10", "p10", "p11"], "group=1"),
        ("dilated", YOLO, "dilations=[2,2]"),
        ("grouped", YOLO, "group=2"),
    ],
)
def test_other_slices_are_no_focus(why: str, parts: list[str], attributes: str) -> None:
    text = f"(float[2,3,8,6] x) => (float[A,B,C,D] y) {{ {focus_text(parts, False)} \n y = Conv<{attributes}>(c, w) }}"
    channels = 6 if why == "grouped" else 12
    check_untouched(FoldFocusIntoConv(), graph(text, w=(4, channels, 1, 1)))


# -- dead channels ---


@pytest.mark.parametrize(
    ("body", "left", "shapes"),
    [
        ("c = Conv(x, w, b) \n y = Slice(c, i1, i3, i1)", ["Conv"], {"w": (4, 6, 1, 1), "b": (4,)}),
        ("c = Conv(x, w) \n p, q = Split<axis=1>(c, s33) \n y = Neg(q)", ["Conv", "Neg"], {"w": (6, 6, 1, 1)}),
        ("c = Conv(x, w) \n p = Slice(c, i1, i3, i1) \n q = Slice(c, i2, i5, i1) \n r = Concat<axis=1>(p, q) \n "
         "y = Neg(r)", ["Conv", "Slice", "Slice", "Concat", "Neg"], {"w": (6, 6, 1, 1)}),
        ("c = MatMul(x, w) \n y = Slice(c, i2, end, i3)", ["MatMul"], {"w": (4, 6)}),
    ],
)  # fmt: skip
def test_channels_that_nothing_reads_are_not_computed(
    body: str, left: list[str], shapes: dict[str, tuple[int, ...]]
) -> None:
    text = f"(float[1,6,4,4] x) => (float[A,B,C,D] y) {{ {body} }}"
    check_rewrite(DropDeadChannels(), graph(text, **shapes), left)


@pytest.mark.parametrize(
    ("attributes", "w", "b"),
    [
        ("transB=0", (6, 5), (5,)),
        ("transB=1", (5, 6), (1, 5)),
        ("alpha=0.5, transB=1", (5, 6), (1,)),
        ("beta=2.0", (6, 5), ()),
    ],
)
def test_columns_of_a_gemm(attributes: str, w: tuple[int, ...], b: tuple[int, ...]) -> None:
    text = f"(float[3,6] x) => (float[3,A] y) {{ c = Gemm<{attributes}>(x, w, b) \n y = Slice(c, i1, i4, i1) }}"
    check_rewrite(DropDeadChannels(), graph(text, w=w, b=b), ["Gemm"])


@pytest.mark.parametrize(
    ("why", "body", "shapes"),
    [
        ("all is read", "c = Conv(x, w) \n p, q = Split<axis=1>(c, s33) \n y = Add(p, q)", {"w": (6, 6, 1, 1)}),
        ("another reader", "c = Conv(x, w) \n p = Slice(c, i0, i1, i1) \n y = Mul(p, c)", {"w": (6, 6, 1, 1)}),
        ("another axis", "c = Conv(x, w) \n y = Slice(c, i0, i1, i2)", {"w": (6, 6, 1, 1)}),
        ("groups", "c = Conv<group=2>(x, w) \n y = Slice(c, i0, i1, i1)", {"w": (6, 3, 1, 1)}),
        ("nothing is read", "c = Conv(x, w) \n y = Slice(c, i3, i3, i1)", {"w": (6, 6, 1, 1)}),
        ("a bias of several rows", "r = Reshape(x, n) \n c = Gemm(r, w, b) \n y = Slice(c, i0, i1, i1)",
         {"w": (6, 6), "b": (16, 6)}),
        ("one row of a vector", "r = Reshape(x, k) \n c = MatMul(r, w) \n y = Slice(c, i0, i1, i0)", {"w": (6, 6)}),
    ],
)  # fmt: skip
def test_channels_that_are_read_stay(why: str, body: str, shapes: dict[str, tuple[int, ...]]) -> None:
    ranks = {"a bias of several rows": "A,B", "one row of a vector": "A,B"}.get(why, "A,B,C,D")
    text = f"(float[1,6,4,4] x) => (float[{ranks}] y) {{ {body} }}"
    before = graph(text, **shapes)
    extra = {"n": np.array([16, 6]), "k": np.array([16, 6])}
    named = {i for n in before.graph.node for i in n.input}
    before.graph.initializer.extend(
        model("g () => () {}", {k: v for k, v in extra.items() if k in named}).graph.initializer
    )
    check_untouched(DropDeadChannels(), before)


# -- another order ---


def test_parts_in_another_order_are_gathered() -> None:
    check_rewrite(
        PermutedPartsToGather(),
        graph(
            "(float[2,6,3] x) => (float[2,A,3] y) "
            "{ p, q, r = Split<axis=1>(x, s222) \n y = Concat<axis=1>(r, p, q, p) }"
        ),
        ["Gather"],
    )


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("a part is read elsewhere", "p, q, r = Split<axis=1>(x, s222) \n c = Concat<axis=1>(r, p, q) \n y = Add(c, x)"
         " \n z = Neg(p)"),
        ("another tensor", "p, q, r = Split<axis=1>(x, s222) \n n = Neg(x) \n z = Concat<axis=1>(r, n, q) \n "
         "y = Neg(p)"),
    ],
)  # fmt: skip
def test_other_orders_stay(why: str, body: str) -> None:
    text = f"(float[2,6,3] x) => (float[A,B,C] y, float[D,E,F] z) {{ {body} }}"
    check_untouched(PermutedPartsToGather(), graph(text))
