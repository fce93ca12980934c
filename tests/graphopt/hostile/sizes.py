"""Small models that ask for terabytes, for ever, or for what processors do not do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, helper, numpy_helper

from tests.graphopt.hostile.cases import HUGE, Cases, graph

CASES = Cases()
TOO_LARGE = "cannot be executed|memory|too large|does not run|no machine holds|took longer"


def asking(text: str, **weights: object) -> ModelProto:
    """The model of `text`; the weights are small ones."""
    proto = graph(text)
    proto.graph.initializer.extend(numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items())
    return proto


@CASES.add(TOO_LARGE)
def a_constant_of_terabytes(folder: Path) -> ModelProto:
    return asking("g () => (float[A,B] y) { y = ConstantOfShape(n) }", n=np.array([1 << 20, 1 << 22]))


@CASES.add(TOO_LARGE)
def a_constant_of_exabytes(folder: Path) -> ModelProto:
    return asking("g () => (float[A,B] y) { y = ConstantOfShape(n) }", n=np.array([HUGE, 4]))


@CASES.add(TOO_LARGE)
def a_constant_of_terabytes_of_which_the_shape_is_read(folder: Path) -> ModelProto:
    text = "g (int64[2] x) => (int64[2] y) { c = Expand(v, n) s = Shape(c) y = Add(x, s) }"
    return asking(text, v=np.float32(1), n=np.array([1 << 20, 1 << 22]))


@CASES.add(TOO_LARGE)
def a_constant_of_terabytes_of_which_one_is_read(folder: Path) -> ModelProto:
    text = "g (float[1] x) => (float[1] y) { c = Expand(v, n) f = Gather(c, i) y = Add(x, f) }"
    return asking(text, v=np.float32(1), n=np.array([1 << 40]), i=np.array([3]))


@CASES.add(TOO_LARGE)
def tiles_of_terabytes(folder: Path) -> ModelProto:
    text = "g (float[1] x) => (float y) { c = Tile(v, n) f = ReduceSum<keepdims = 0>(c) y = Add(x, f) }"
    return asking(text, v=np.ones(4, np.float32), n=np.array([1 << 40]))


@CASES.add(TOO_LARGE)
def a_range_of_terabytes(folder: Path) -> ModelProto:
    text = "g (int64[1] x) => (int64[1] y) { c = Range(a, b, d) f = ReduceSum<keepdims = 0>(c) y = Add(x, f) }"
    return asking(text, a=np.int64(0), b=np.int64(1 << 40), d=np.int64(1))


@CASES.add("")
def a_range_of_exabytes(folder: Path) -> ModelProto:
    text = "g (int64[1] x) => (int64[1] y) { c = Range(a, b, d) f = ReduceSum<keepdims = 0>(c) y = Add(x, f) }"
    return asking(text, a=np.int64(-HUGE), b=np.int64(HUGE), d=np.int64(1))


@CASES.add("")
def a_range_with_no_step(folder: Path) -> ModelProto:
    text = "g (int64[1] x) => (int64[1] y) { c = Range(a, b, d) f = ReduceSum<keepdims = 0>(c) y = Add(x, f) }"
    return asking(text, a=np.int64(0), b=np.int64(5), d=np.int64(0))


@CASES.add(TOO_LARGE)
def a_one_hot_of_terabytes(folder: Path) -> ModelProto:
    text = "g (float[1] x) => (float y) { c = OneHot(i, n, v) f = ReduceSum<keepdims = 0>(c) y = Add(x, f) }"
    return asking(text, i=np.array([1, 2]), n=np.int64(1 << 40), v=np.array([0, 1], np.float32))


@CASES.add(TOO_LARGE)
def pads_of_terabytes(folder: Path) -> ModelProto:
    text = "g (float[4] x) => (float y) { c = Pad(x, p) y = ReduceSum<keepdims = 0>(c) }"
    return asking(text, p=np.array([0, 1 << 40]))


@CASES.add(TOO_LARGE)
def a_resize_to_terabytes(folder: Path) -> ModelProto:
    text = 'g (float[1,1,4,4] x) => (float[A,B,C,D] y) { y = Resize<mode = "nearest">(x, , , n) }'
    return asking(text, n=np.array([1, 1, 1 << 20, 1 << 20]))


@CASES.add(TOO_LARGE)
def doubling_sixty_times(folder: Path) -> ModelProto:
    lines = " ".join(f"t{i + 1} = Concat<axis = 0>(t{i}, t{i})" for i in range(60))
    return asking(f"g (float[1] x) => (float y) {{ {lines} c = ReduceSum<keepdims = 0>(t60) y = Add(x, c) }}",
                  t0=np.ones(2, np.float32))  # fmt: skip


@CASES.add(TOO_LARGE)
def doubling_the_input_sixty_times(folder: Path) -> ModelProto:
    lines = " ".join(f"t{i + 1} = Concat<axis = 0>(t{i}, t{i})" for i in range(60))
    return asking(f"g (float[2] t0) => (float y) {{ {lines} y = ReduceSum<keepdims = 0>(t60) }}")


@CASES.add(TOO_LARGE)
def an_outer_product_of_terabytes(folder: Path) -> ModelProto:
    text = """g (float[1] x) => (float y) {
        a = Expand(v, n) b = Expand(v, m) c = MatMul(a, b) f = ReduceSum<keepdims = 0>(c) y = Add(x, f)
    }"""
    return asking(text, v=np.float32(1), n=np.array([1 << 20, 1]), m=np.array([1, 1 << 20]))


@CASES.add(TOO_LARGE)
def random_numbers_of_terabytes(folder: Path) -> ModelProto:
    return asking(f"g () => (float[{1 << 40}] y) {{ y = RandomNormal<shape = [{1 << 40}]>() }}")


@CASES.add(TOO_LARGE)
def a_loop_without_end(folder: Path) -> ModelProto:
    body = "b (int64 i, bool c, float[4] s) => (bool d, float[4] t) { d = Identity(c) t = Sin(s) }"
    return asking(f"g (float[4] x) => (float[4] y) {{ y = Loop(n, c, x) <body = {body}> }}",
                  n=np.int64(HUGE), c=np.bool_(True))  # fmt: skip


@CASES.add(TOO_LARGE)
def a_loop_that_is_known_and_without_end(folder: Path) -> ModelProto:
    body = "b (int64 i, bool c, float[4] s) => (bool d, float[4] t) { d = Identity(c) t = Sin(s) }"
    return asking(f"g (float[4] x) => (float[4] y) {{ l = Loop(n, c, s) <body = {body}> y = Add(x, l) }}",
                  n=np.int64(HUGE), c=np.bool_(True), s=np.ones(4, np.float32))  # fmt: skip


@CASES.add(TOO_LARGE)
def a_loop_that_gathers_terabytes(folder: Path) -> ModelProto:
    body = "b (int64 i, bool c) => (bool d, float[K] t) { d = Identity(c) t = Expand(v, m) }"
    return asking(f"g (float[4] x) => (float[4] y) {{ l = Loop(n, c) <body = {body}> f = ReduceSum<keepdims = 0>(l) "
                  "y = Add(x, f) }", n=np.int64(HUGE), c=np.bool_(True), v=np.float32(1),
                  m=np.array([1 << 24]))  # fmt: skip


@CASES.add("")
def integers_divided_by_zero(folder: Path) -> ModelProto:
    return asking("g (int64[4] x) => (int64[4] y) { y = Div(x, z) }", z=np.zeros(4, np.int64))


@CASES.add("")
def known_integers_divided_by_zero(folder: Path) -> ModelProto:
    text = "g (int64[4] x) => (int64[4] y) { q = Div(o, z) y = Add(x, q) }"
    return asking(text, z=np.zeros(4, np.int64), o=np.ones(4, np.int64))


@CASES.add("")
def known_integers_modulo_zero(folder: Path) -> ModelProto:
    text = "g (int64[4] x) => (int64[4] y) { q = Mod(o, z) y = Add(x, q) }"
    return asking(text, z=np.zeros(4, np.int64), o=np.ones(4, np.int64))


@CASES.add("")
def the_least_integer_divided_by_minus_one(folder: Path) -> ModelProto:
    text = "g (int64[4] x) => (int64[4] y) { q = Div(o, z) y = Add(x, q) }"
    return asking(text, z=np.full(4, -1), o=np.full(4, np.iinfo(np.int64).min))


@CASES.add("")
def a_shape_divided_by_zero(folder: Path) -> ModelProto:
    text = "g (float[8] x) => (float[N] y) { s = Shape(x) q = Div(s, z) y = Reshape(x, q) }"
    return asking(text, z=np.zeros(1, np.int64))


@CASES.add("")
def strides_of_zero(folder: Path) -> ModelProto:
    return graph(
        "g (float[1,1,8,8] x) => (float[A,B,C,D] y) { y = MaxPool<kernel_shape = [2, 2], strides = [0, 0]>(x) }"
    )


@CASES.add("")
def strides_of_a_conv_of_zero(folder: Path) -> ModelProto:
    return asking("g (float[1,1,8,8] x) => (float[A,B,C,D] y) { y = Conv<strides = [0, 0]>(x, w) }",
                  w=np.ones((1, 1, 2, 2), np.float32))  # fmt: skip


@CASES.add("")
def no_groups(folder: Path) -> ModelProto:
    return asking("g (float[1,1,8,8] x) => (float[A,B,C,D] y) { y = Conv<group = 0>(x, w) }",
                  w=np.ones((1, 1, 2, 2), np.float32))  # fmt: skip


@CASES.add("")
def as_many_groups_as_there_are_numbers(folder: Path) -> ModelProto:
    return asking(f"g (float[1,1,8,8] x) => (float[A,B,C,D] y) {{ y = Conv<group = {HUGE}>(x, w) }}",
                  w=np.ones((1, 1, 2, 2), np.float32))  # fmt: skip


@CASES.add("")
def pads_of_a_conv_of_exabytes(folder: Path) -> ModelProto:
    pads = f"[{HUGE}, {HUGE}, {HUGE}, {HUGE}]"
    return asking(f"g (float[1,1,8,8] x) => (float[A,B,C,D] y) {{ y = Conv<pads = {pads}>(x, w) }}",
                  w=np.ones((1, 1, 2, 2), np.float32))  # fmt: skip


@CASES.add("")
def dilations_of_a_conv_that_wrap(folder: Path) -> ModelProto:
    return asking(f"g (float[1,1,8,8] x) => (float[A,B,C,D] y) {{ y = Conv<dilations = [{HUGE}, {HUGE}]>(x, w) }}",
                  w=np.ones((1, 1, 3, 3), np.float32))  # fmt: skip


@CASES.add("")
def a_kernel_of_a_pool_of_exabytes(folder: Path) -> ModelProto:
    kernel = f"kernel_shape = [{HUGE}, {HUGE}]"
    return graph(f"g (float[1,1,8,8] x) => (float[A,B,C,D] y) {{ y = AveragePool<{kernel}>(x) }}")


@CASES.add("")
def blocks_of_no_size(folder: Path) -> ModelProto:
    return graph("g (float[1,4,8,8] x) => (float[A,B,C,D] y) { y = DepthToSpace<blocksize = 0>(x) }")


@CASES.add("")
def blocks_of_no_size_the_other_way(folder: Path) -> ModelProto:
    return graph("g (float[1,4,8,8] x) => (float[A,B,C,D] y) { y = SpaceToDepth<blocksize = 0>(x) }")


@CASES.add("")
def a_split_into_no_parts(folder: Path) -> ModelProto:
    return graph("g (float[8] x) => (float[A] y) { y = Split<num_outputs = 0>(x) }", opset=18)


@CASES.add("")
def a_split_into_exabytes_of_parts(folder: Path) -> ModelProto:
    return graph(f"g (float[8] x) => (float[A] y) {{ y = Split<num_outputs = {HUGE}>(x) }}", opset=18)


@CASES.add("")
def a_slice_with_no_step(folder: Path) -> ModelProto:
    text = "g (float[8] x) => (float[A] y) { y = Slice(x, b, e, a, s) }"
    return asking(text, b=np.array([0]), e=np.array([8]), a=np.array([0]), s=np.array([0]))


@CASES.add("")
def a_slice_at_the_ends_of_the_integers(folder: Path) -> ModelProto:
    text = "g (float[8] x) => (float[A] y) { y = Slice(x, b, e, a, s) }"
    least, most = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    return asking(text, b=np.array([most]), e=np.array([least]), a=np.array([0]), s=np.array([least]))


@CASES.add("")
def an_axis_of_exabytes(folder: Path) -> ModelProto:
    return graph(f"g (float[8] x) => (float[8] y) {{ y = Softmax<axis = {HUGE}>(x) }}")


@CASES.add("")
def axes_of_exabytes(folder: Path) -> ModelProto:
    return asking("g (float[8] x) => (float[A,B] y) { y = Unsqueeze(x, a) }", a=np.array([HUGE]))


@CASES.add("")
def a_permutation_of_exabytes(folder: Path) -> ModelProto:
    return graph(f"g (float[8,8] x) => (float[A,B] y) {{ y = Transpose<perm = [{HUGE}, -{HUGE}]>(x) }}")


@CASES.add("")
def an_index_of_exabytes(folder: Path) -> ModelProto:
    text = "g (float[8] x) => (float[1] y) { k = Gather(w, i) s = Gather(x, i) y = Add(s, k) }"
    return asking(text, i=np.array([HUGE]), w=np.ones(4, np.float32))


@CASES.add("")
def a_shape_of_a_thousand_dimensions(folder: Path) -> ModelProto:
    return asking("g (float[1] x) => (float[A] y) { z = Reshape(x, s) y = Reshape(z, o) }",
                  s=np.ones(1000, np.int64), o=np.ones(1, np.int64))  # fmt: skip


@CASES.add("")
def a_reshape_to_exabytes(folder: Path) -> ModelProto:
    return asking("g (float[8] x) => (float[A,B] y) { y = Reshape(x, s) }", s=np.array([HUGE, -1]))


@CASES.add("")
def a_reshape_to_negative_sizes(folder: Path) -> ModelProto:
    return asking("g (float[8] x) => (float[A,B] y) { y = Reshape(x, s) }", s=np.array([-2, -4]))


@CASES.add("")
def an_einsum_of_terabytes(folder: Path) -> ModelProto:
    letters = "abcdefghijklmnopqrst"
    equation = ",".join(letters) + "->" + letters
    names = ", ".join("v" for _ in letters)
    text = f'g (float[1] x) => (float y) {{ e = Einsum<equation = "{equation}">({names}) ' \
        "f = ReduceSum<keepdims = 0>(e) y = Add(x, f) }"  # fmt: skip
    return asking(text, v=np.ones(64, np.float32))


@CASES.add("")
def an_equation_that_is_none(folder: Path) -> ModelProto:
    return graph('g (float[2,2] x) => (float[A,B] y) { y = Einsum<equation = "((((i,->->">(x, x) }')


@CASES.add("")
def a_cast_to_no_type(folder: Path) -> ModelProto:
    return graph("g (float[2] x) => (float[2] y) { y = Cast<to = 999>(x) }")


@CASES.add("")
def a_window_of_exabytes(folder: Path) -> ModelProto:
    text = "g (float[1] x) => (float[A] y) { h = HannWindow(n) f = ReduceSum(h) y = Add(x, f) }"
    return asking(text, n=np.int64(HUGE))


@CASES.add("")
def an_identity_matrix_of_terabytes(folder: Path) -> ModelProto:
    text = "g (float[1] x) => (float[A] y) { z = ConstantOfShape(n) e = EyeLike(z) f = ReduceSum(e) y = Add(x, f) }"
    return asking(text, n=np.array([1 << 20, 1 << 20]))


@CASES.add("")
def boxes_of_exabytes(folder: Path) -> ModelProto:
    text = "g (float[1,4,4] b, float[1,1,4] s) => (int64[N,M] y) { y = NonMaxSuppression(b, s, n) }"
    return asking(text, n=np.array([HUGE]))


@CASES.add("")
def the_top_of_exabytes(folder: Path) -> ModelProto:
    return asking("g (float[8] x) => (float[A] y) { y, i = TopK(x, k) }", k=np.array([HUGE]))


@CASES.add("")
def an_empty_loop_of_terabytes(folder: Path) -> ModelProto:
    body = "b (int64 i, bool c, float[4] s) => (bool d, float[4] t, float[A] k) { d = Identity(c) t = Sin(s) "
    body += "k = Expand(s, m) }"
    return asking(f"g (float[4] x) => (float[4] y) {{ y, z = Loop(n, c, x) <body = {body}> }}",
                  n=np.int64(0), c=np.bool_(True), m=np.array([1 << 40, 4]))  # fmt: skip


@CASES.add("")
def attributes_of_another_kind(folder: Path) -> ModelProto:
    proto = graph("g (float[1,1,8,8] x) => (float[A,B,C,D] y) { y = MaxPool<kernel_shape = [2, 2]>(x) }")
    attribute = proto.graph.node[0].attribute[0]
    attribute.CopyFrom(helper.make_attribute("kernel_shape", "two by two"))
    return proto
