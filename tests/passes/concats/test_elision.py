"""Concat, Split and Slice that undo one another: what goes, and what stays."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import ModelProto

from graphopt.targets import Target
from graphopt_passes.concats import ElideConcats
from graphopt_passes.concats.coalesce import CoalesceParts
from graphopt_passes.concats.flatten import DropEmptyParts, FlattenConcats, FlattenSharedConcats
from graphopt_passes.concats.part_of_concat import GatherConcatInput, SliceConcatInput
from graphopt_passes.concats.split_of_concat import SplitConcatApart
from graphopt_passes.concats.tiling import SlicesToSplit
from tests.support.models import model
from tests.support.rewrites import apply_pass, check_numbers, check_rewrite, check_untouched

WEIGHTS = {
    **{f"i{n}": np.array([n], np.int64) for n in range(8)},
    "end": np.array([np.iinfo(np.int64).max], np.int64),
    "back": np.array([-2], np.int64),
    "minus": np.array([-1], np.int64),
    "s222": np.array([2, 2, 2], np.int64),
    "s24": np.array([2, 4], np.int64),
    "s42": np.array([4, 2], np.int64),
    "s33": np.array([3, 3], np.int64),
    "s15": np.array([1, 5], np.int64),
    "s23": np.array([2, 3], np.int64),
    "s2211": np.array([2, 2, 1, 1], np.int64),
}


def graph(text: str, opset: int = 17) -> ModelProto:
    """The model of `text`, with those of `WEIGHTS` that it names."""
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return model(f"g {text}", {k: v for k, v in WEIGHTS.items() if k in words}, opset=opset)


# -- nested and empty ---


@pytest.mark.parametrize("axis", [1, -1])
def test_nested_concats_are_one(axis: int) -> None:
    check_rewrite(
        FlattenConcats(),
        graph(
            "(float[2,3] a, float[2,4] b) => (float[2,A] y) { "
            f"c = Concat<axis=1>(a, b) \n y = Concat<axis={axis}>(b, c, a) }}"
        ),
        f"g (float[2,3] a, float[2,4] b) => (float[2,A] y) {{ y = Concat<axis={axis}>(b, a, b, a) }}",
    )


@pytest.mark.parametrize(
    ("why", "text"),
    [
        (
            "another axis",
            "(float[2,2] a) => (float[4,A] y) { c = Concat<axis=1>(a, a) \n y = Concat<axis=0>(c, c) }",
        ),
        (
            "another reader",
            "(float[2,2] a) => (float[2,A] y, float[2,B] z) "
            "{ c = Concat<axis=1>(a, a) \n y = Concat<axis=1>(c, a) \n z = Relu(c) }",
        ),
        (
            "the inner one is an output",
            "(float[2,2] a) => (float[2,A] y, float[2,B] c) { c = Concat<axis=1>(a, a) \n y = Concat<axis=1>(c, a) }",
        ),
    ],
)
def test_nested_concats_stay(why: str, text: str) -> None:
    check_untouched(FlattenConcats(), graph(text))


def test_shared_concats_are_taken_apart_for_tensorrt_alone() -> None:
    before = graph(
        "(float[2,2] a, float[2,3] b) => (float[2,A] y, float[2,B] z) "
        "{ c = Concat<axis=1>(a, b) \n y = Concat<axis=1>(c, a) \n z = Relu(c) }"
    )
    check_rewrite(
        FlattenSharedConcats(),
        before,
        "g (float[2,2] a, float[2,3] b) => (float[2,A] y, float[2,B] z) "
        "{ c = Concat<axis=1>(a, b) \n y = Concat<axis=1>(a, b, a) \n z = Relu(c) }",
    )
    check_untouched(FlattenSharedConcats(), before, target=Target.ONNXRUNTIME)


def test_empty_parts_go() -> None:
    check_rewrite(
        DropEmptyParts(),
        graph("(float[2,3] a, float[2,0] e) => (float[2,A] y) { y = Concat<axis=-1>(e, a, e, a) }"),
        "g (float[2,3] a, float[2,0] e) => (float[2,A] y) { y = Concat<axis=-1>(a, a) }",
    )
    check_rewrite(
        DropEmptyParts(),
        graph("(float[2,0] e) => (float[2,A] y) { y = Concat<axis=1>(e, e) }"),
        "g (float[2,0] e) => (float[2,A] y) { y = Concat<axis=1>(e) }",
    )
    check_untouched(
        DropEmptyParts(), graph("(float[0,3] a, float[0,2] b) => (float[0,A] y) { y = Concat<axis=1>(a, b) }")
    )
    check_untouched(
        DropEmptyParts(), graph("(float[2,3] a, float[2,N] b) => (float[2,A] y) { y = Concat<axis=1>(a, b) }")
    )


# -- parts of one tensor that meet again ---


@pytest.mark.parametrize(
    ("split", "opset"),
    [
        ("p, q, r = Split<axis=1>(x, s222)", 17),
        ("p, q, r = Split<axis=-1>(x)", 17),
        ("p, q, r = Split<axis=1, split=[2, 2, 2]>(x)", 11),
        ("p, q, r = Split<axis=1, split=[1, 2, 3]>(x)", 12),
        ("p, q, r = Split<axis=1, num_outputs=3>(x)", 18),
        ("p = Slice(x, i0, i2, i1) \n q = Slice(x, i2, back, i1) \n r = Slice(x, i4, end, i1)", 17),
        ("p = Slice(x, i0, i2, minus) \n q = Slice(x, i2, i4, i1) \n r = Slice(x, back, i7, i1)", 17),
        (
            "p = Slice<axes=[1], starts=[0], ends=[1]>(x) \n q = Slice<axes=[1], starts=[1], ends=[5]>(x) \n "
            "r = Slice<axes=[1], starts=[5], ends=[9]>(x)",
            9,
        ),
        ("p, o = Split<axis=1>(x, s24) \n q = Slice(o, i0, i2, i1) \n r = Slice(o, i2, end, i1)", 17),
    ],
)
def test_all_parts_in_order_are_the_tensor(split: str, opset: int) -> None:
    check_rewrite(
        CoalesceParts(),
        graph(f"(float[2,6] v) => (float[2,A] y) {{ x = Neg(v) \n {split} \n y = Concat<axis=1>(p, q, r) }}", opset),
        "g (float[2,6] v) => (float[2,A] y) { y = Neg(v) }",
        opset=opset,
    )


@pytest.mark.parametrize("dim", [0, 1, 4, 6])
def test_parts_of_an_unknown_size_meet_whatever_it_is(dim: int) -> None:
    text = """(float[2,N] v) => (float[2,A] y, float[2,B] z) {{
        x = Neg(v)
        a = Slice(x, i0, {border}, i1)
        b = Slice(x, {border}, end, i1)
        y = Concat<axis=1>(a, b)
        c, d = Split<axis=1>(x)
        z = Concat<axis=1>(c, d) }}"""
    for border in ("i3", "back"):
        after = check_rewrite(CoalesceParts(), graph(text.format(border=border)), ["Neg", "Identity"], applied=2, N=6)
        if dim % 2 == 0:
            check_numbers(graph(text.format(border=border)), after, exact=True, N=dim)


def test_neighbouring_slices_are_one() -> None:
    check_rewrite(
        CoalesceParts(),
        graph(
            "(float[2,6] x, float[2,1] c) => (float[2,A] y) { a = Slice(x, i1, i3, i1) \n b = Slice(x, i3, i5, i1) \n "
            "y = Concat<axis=1>(c, a, b) }"
        ),
        ["Slice", "Concat"],
    )


def test_an_input_of_the_graph_keeps_its_name_and_the_output_its_own() -> None:
    check_rewrite(
        CoalesceParts(),
        graph("(float[2,6] x) => (float[2,A] y) { a, b = Split<axis=1>(x, s24) \n y = Concat<axis=1>(a, b) }"),
        "g (float[2,6] x) => (float[2,A] y) { y = Identity(x) }",
    )


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("the other order", "a, b = Split<axis=1>(x, s33) \n y = Concat<axis=1>(b, a)"),
        ("another axis", "a, b = Split<axis=1>(x, s33) \n y = Concat<axis=0>(a, b)"),
        ("a part twice", "a, b = Split<axis=1>(x, s33) \n y = Concat<axis=1>(a, a)"),
        ("a hole between", "a = Slice(x, i0, i2, i1) \n b = Slice(x, i3, end, i1) \n y = Concat<axis=1>(a, b)"),
        ("an overlap", "a = Slice(x, i0, i4, i1) \n b = Slice(x, i3, end, i1) \n y = Concat<axis=1>(a, b)"),
        ("parts of two tensors", "a, b = Split<axis=1>(x, s33) \n c, d = Split<axis=1>(v, s33) \n "
         "e = Concat<axis=1>(a, d) \n f = Concat<axis=1>(c, b) \n y = Add(e, f)"),
        ("every second element", "a = Slice(x, i0, i6, i1, i2) \n b = Slice(x, i6, end, i1, i2) \n "
         "y = Concat<axis=1>(a, b)"),
        ("some of a Split's parts, the others used", "a, b, c = Split<axis=1>(x, s222) \n d = Concat<axis=1>(a, b) \n "
         "y = Concat<axis=0>(d, d) \n z = Neg(c)"),
    ],
)  # fmt: skip
def test_parts_stay(why: str, body: str) -> None:
    outputs = "float[A,B] y, float[C,D] z" if "z =" in body else "float[A,B] y"
    text = f"(float[2,6] v) => ({outputs}) {{ x = Neg(v) \n {body} }}"
    if "twice" in why:
        text = text.replace("a, b = ", "a, unused = ")
    check_untouched(CoalesceParts(), graph(text))


def test_slices_of_an_unknown_size_that_may_swap_their_ends_stay() -> None:
    """x[1:-2] and x[-2:] are no neighbours when x has one element: the first is empty, the second all of it."""
    check_untouched(
        CoalesceParts(),
        graph(
            "(float[2,N] x) => (float[2,A] y) { a = Slice(x, i1, back, i1) \n b = Slice(x, back, end, i1) \n "
            "y = Concat<axis=1>(a, b) }"
        ),
    )


# -- Split of a Concat ---

CONCAT = "(float[2,2] a, float[2,2] b, float[2,2] c) => ({outputs}) {{ x = Concat<axis=1>(a, b, c) \n {body} }}"


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("p, q, r = Split<axis=1>(x, s222) \n y = Add(p, q) \n z = Neg(r)", ["Add", "Neg"]),
        ("p, q, r = Split<axis=-1>(x) \n y = Add(p, q) \n z = Neg(r)", ["Add", "Neg"]),
        ("p, q = Split<axis=1>(x, s42) \n y = Neg(p) \n z = Neg(q)", ["Concat", "Neg", "Neg"]),
        ("p, q, r, s = Split<axis=1>(x, s2211) \n t = Sub(r, s) \n y = Sub(p, t) \n z = Neg(q)",
         ["Split", "Sub", "Sub", "Neg"]),
        ("y, q, r = Split<axis=1>(x, s222) \n z = Sub(q, r)", ["Identity", "Sub"]),
        ("p, q, r = Split<axis=1>(x, s222) \n y = Add(p, q) \n z = Mul(x, x)", ["Concat", "Add", "Mul"]),
    ],
)  # fmt: skip
def test_split_of_a_concat_at_its_borders(body: str, left: list[str]) -> None:
    text = CONCAT.format(outputs="float[2,A] y, float[2,B] z", body=body)
    check_rewrite(SplitConcatApart(), graph(text), left)


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("no border in common", "p, q = Split<axis=1>(x, s33) \n y = Sub(p, q)"),
        ("the other axis", "p, q = Split<axis=0>(x) \n y = Sub(p, q)"),
        ("the Concat is read too, and another would be needed", "p, q = Split<axis=1>(x, s42) \n n = Neg(p) \n "
         "m = Neg(q) \n y = Concat<axis=1>(n, m, x)"),
    ],
)  # fmt: skip
def test_split_of_a_concat_stays(why: str, body: str) -> None:
    check_untouched(SplitConcatApart(), graph(CONCAT.format(outputs="float[A,B] y", body=body)))


def test_split_of_a_concat_of_unknown_sizes_stays() -> None:
    check_untouched(
        SplitConcatApart(),
        graph(
            "(float[2,N] a, float[2,M] b) => (float[2,A] y) "
            "{ x = Concat<axis=1>(a, b) \n p, q = Split<axis=1>(x, s24) \n r, t = Split<axis=1>(x, s24) \n "
            "y = Sum(p, r) }"
        ),
    )


# -- Slice and Gather of a Concat ---


@pytest.mark.parametrize(
    ("body", "left"),
    [
        ("z = Slice(x, i2, i4, i1) \n y = Neg(z)", ["Neg"]),
        ("z = Slice(x, i3, i4, minus) \n y = Neg(z)", ["Slice", "Neg"]),
        ("z = Slice(x, back, end, i1) \n y = Neg(z)", ["Neg"]),
        ("z = Slice(x, s24, s33, s10, s11) \n y = Neg(z)", ["Slice", "Neg"]),
        ("z = Slice(x, i4, end, i1, i2) \n y = Neg(z)", ["Slice", "Neg"]),
    ],
)
def test_slice_inside_one_input(body: str, left: list[str]) -> None:
    text = CONCAT.format(outputs="float[A,B] y", body=body)
    before = graph(text)
    if "s10" in body:
        before = model(
            f"g {text.replace('s24', 'lo').replace('s33', 'hi')}",
            {"lo": np.array([2, 0]), "hi": np.array([4, 1]), "s10": np.array([1, 0]), "s11": np.array([1, 1])},
        )
    check_rewrite(SliceConcatInput(), before, left)


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("it crosses a border", "y = Slice(x, i1, i3, i1)"),
        ("it cuts another axis", "y = Slice(x, i0, i1, i0)"),
        ("it goes backwards", "y = Slice(x, i3, i1, i1, minus)"),
        ("it takes nothing", "y = Slice(x, i3, i3, i1)"),
    ],
)
def test_slice_of_a_concat_stays(why: str, body: str) -> None:
    check_untouched(SliceConcatInput(), graph(CONCAT.format(outputs="float[A,B] y", body=body)))


def test_gather_inside_one_input() -> None:
    for index, shape in (("i3", "float[2,A] y"), ("minus", "float[2,A] y")):
        text = CONCAT.format(outputs=shape, body=f"y = Gather<axis=-1>(x, {index})")
        check_rewrite(GatherConcatInput(), graph(text), ["Gather"])
    scalar = CONCAT.format(outputs="float[2] y", body="y = Gather<axis=1>(x, n)")
    check_rewrite(GatherConcatInput(), model(f"g {scalar}", {"n": np.array(5)}), ["Gather"])
    for index in ("s15", "s42"):
        text = CONCAT.format(outputs="float[2,A] y", body=f"y = Gather<axis=1>(x, {index})")
        check_untouched(GatherConcatInput(), graph(text), because="more than one input")


# -- Slices that tile ---


@pytest.mark.parametrize("opset", [9, 12, 17, 18])
def test_slices_that_tile_become_a_split(opset: int) -> None:
    def part(low: int, high: int | str) -> str:
        if opset < 10:
            return f"Slice<axes=[1], starts=[{low}], ends=[{9 if high == 'end' else high}]>(x)"
        return f"Slice(x, i{low}, {high if high == 'end' else f'i{high}'}, i1)"

    before = graph(
        "(float[2,6] x) => (float[2,2] y, float[2,4] z) { a = "
        + f"{part(2, 'end')} \n b = {part(0, 2)} \n y = Neg(b) \n z = Neg(a) }}",
        opset,
    )
    check_rewrite(SlicesToSplit(), before, ["Neg", "Neg", "Split"])


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("a hole", "a = Slice(x, i0, i2, i1) \n b = Slice(x, i3, end, i1)"),
        ("an overlap", "a = Slice(x, i0, i4, i1) \n b = Slice(x, i3, end, i1)"),
        ("two axes", "a = Slice(x, i0, i3, i1) \n b = Slice(x, i1, end, i0)"),
        ("one Slice", "a = Slice(x, i0, i7, i1) \n b = Neg(x)"),
        ("steps", "a = Slice(x, i0, i4, i1, i2) \n b = Slice(x, i4, end, i1, i2)"),
    ],
)
def test_slices_that_do_not_tile_stay(why: str, body: str) -> None:
    text = f"(float[2,6] x) => (float[A,B] y, float[C,D] z) {{ {body} \n y = Neg(a) \n z = Neg(b) }}"
    check_untouched(SlicesToSplit(), graph(text))


def test_slices_of_an_unknown_size_stay() -> None:
    text = "(float[2,N] x) => (float[2,A] y, float[2,B] z) "
    text += "{ a = Slice(x, i0, i2, i1) \n b = Slice(x, i2, end, i1) \n y = Neg(a) \n z = Neg(b) }"
    check_untouched(SlicesToSplit(), graph(text))


# -- all together ---


def test_in_the_branches_of_an_if() -> None:
    before = model(
        """g (float[2,6] x, bool c) => (float[2,A] y) {
        y = If(c) <
            then_branch = t () => (float[2,B] r) { a, b = Split<axis=1>(x) \n r = Concat<axis=1>(a, b) },
            else_branch = f () => (float[2,C] s) { d, e = Split<axis=1>(x) \n s = Concat<axis=1>(e, d) }
        > }"""
    )
    after, _ = apply_pass(ElideConcats(), before)
    (then_branch,) = [a.g for a in after.graph.node[0].attribute if a.name == "then_branch"]
    assert [n.op_type for n in then_branch.node] == ["Identity"]
    for seed in range(2):
        check_numbers(before, after, exact=True, inputs={"x": np.ones((2, 6), np.float32), "c": np.array(bool(seed))})


def test_functions_without_types_are_left_alone() -> None:
    before = model(
        "g (float[2,6] x) => (float[2,6] y) { y = local.swap(x) }",
        functions="""<domain: "local", opset_import: ["" : 17]>
        swap (x) => (y) { a, b = Split<axis=1>(x) \n y = Concat<axis=1>(b, a) }""",
        domains=', "local" : 1',
    )
    after, _ = apply_pass(ElideConcats(), before)
    check_numbers(before, after, exact=True)
