"""Weights in other files, and weights whose dims and data disagree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto, helper

from tests.graphopt.hostile.cases import HUGE, Cases, adding, graph, outside, weight

CASES = Cases()
SECRET = b"0123456789abcdef"
FLOATS = np.ones(4, np.float32).tobytes()


@CASES.add("outside the model's folder")
def a_parent_folder(folder: Path) -> ModelProto:
    (folder.parent / "secret.bin").write_bytes(SECRET)
    return adding(outside("../secret.bin"))


@CASES.add("outside the model's folder")
def a_parent_folder_by_a_detour(folder: Path) -> ModelProto:
    (folder / "a").mkdir()
    (folder.parent / "secret.bin").write_bytes(SECRET)
    return adding(outside("a/../../secret.bin"))


@CASES.add("outside the model's folder")
def an_absolute_path(folder: Path) -> ModelProto:
    return adding(outside("/etc/passwd", length="16"))


@CASES.add("outside the model's folder")
def an_absolute_path_into_the_own_folder(folder: Path) -> ModelProto:
    (folder / "w.bin").write_bytes(SECRET)
    return adding(outside(str(folder / "w.bin")))


@CASES.add("outside the model's folder")
def a_link_to_a_file_elsewhere(folder: Path) -> ModelProto:
    (folder.parent / "secret.bin").write_bytes(SECRET)
    (folder / "w.bin").symlink_to(folder.parent / "secret.bin")
    return adding(outside("w.bin"))


@CASES.add("outside the model's folder")
def a_link_to_a_folder_elsewhere(folder: Path) -> ModelProto:
    (folder.parent / "secrets").mkdir()
    (folder.parent / "secrets" / "w.bin").write_bytes(SECRET)
    (folder / "weights").symlink_to(folder.parent / "secrets")
    return adding(outside("weights/w.bin"))


@CASES.add("outside the model's folder")
def a_link_to_a_device(folder: Path) -> ModelProto:
    (folder / "w.bin").symlink_to("/dev/zero")
    return adding(outside("w.bin", length="16"))


@CASES.add("missing|no file")
def a_link_to_itself(folder: Path) -> ModelProto:
    (folder / "w.bin").symlink_to("w.bin")
    return adding(outside("w.bin"))


@CASES.add(None)
def a_link_within_the_folder(folder: Path) -> ModelProto:
    (folder / "real.bin").write_bytes(FLOATS)
    (folder / "w.bin").symlink_to("real.bin")
    return adding(outside("w.bin"))


@CASES.add("missing")
def a_pipe_that_nobody_writes(folder: Path) -> ModelProto:
    import os

    os.mkfifo(folder / "w.bin")
    return adding(outside("w.bin"))


@CASES.add("missing")
def a_folder(folder: Path) -> ModelProto:
    (folder / "w.bin").mkdir()
    return adding(outside("w.bin"))


@CASES.add("missing|no file")
def a_path_with_a_zero_byte(folder: Path) -> ModelProto:
    return adding(outside("w\0.bin"))


@CASES.add("missing|no file")
def a_path_of_a_megabyte(folder: Path) -> ModelProto:
    return adding(outside("w" * (1 << 20)))


@CASES.add("names no file")
def no_path(folder: Path) -> ModelProto:
    return adding(outside(""))


@CASES.add("ends before the tensor does")
def an_offset_behind_the_end(folder: Path) -> ModelProto:
    (folder / "w.bin").write_bytes(FLOATS)
    return adding(outside("w.bin", offset=str(HUGE)))


@CASES.add("ends before the tensor does")
def a_negative_offset(folder: Path) -> ModelProto:
    (folder / "w.bin").write_bytes(FLOATS * 2)
    return adding(outside("w.bin", offset="-16"))


@CASES.add("no number")
def an_offset_of_many_digits(folder: Path) -> ModelProto:
    (folder / "w.bin").write_bytes(FLOATS)
    return adding(outside("w.bin", offset="9" * 10_000))


@CASES.add("ends before the tensor does")
def a_negative_length(folder: Path) -> ModelProto:
    (folder / "w.bin").write_bytes(FLOATS)
    return adding(outside("w.bin", length="-1"))


@CASES.add("holds 8 bytes where")
def a_file_that_is_too_short(folder: Path) -> ModelProto:
    (folder / "w.bin").write_bytes(FLOATS[:8])
    return adding(outside("w.bin"))


@CASES.add("holds 16 bytes where|not valid")
def a_file_for_a_shape_of_exabytes(folder: Path) -> ModelProto:
    (folder / "w.bin").write_bytes(FLOATS)
    return adding(outside("w.bin", [HUGE, 4]))


@CASES.add("outside the model's folder")
def a_secret_in_a_constant_node(folder: Path) -> ModelProto:
    (folder.parent / "secret.bin").write_bytes(SECRET)
    proto = graph("g (float[1,4] x) => (float[1,4] y) { y = Add(x, w) }")
    proto.graph.node.insert(0, helper.make_node("Constant", [], ["w"], value=outside("../secret.bin")))
    return proto


@CASES.add("outside the model's folder|outside the directory")
def a_secret_in_a_fill_value(folder: Path) -> ModelProto:
    (folder.parent / "secret.bin").write_bytes(SECRET)
    proto = graph("g (int64[1] n) => (float[M] y) { y = ConstantOfShape(n) }")
    proto.graph.node[0].attribute.append(helper.make_attribute("value", outside("../secret.bin", [1])))
    return proto


@CASES.add("outside the model's folder|outside the directory")
def a_secret_in_a_sparse_weight(folder: Path) -> ModelProto:
    (folder.parent / "secret.bin").write_bytes(SECRET)
    proto = graph("g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }")
    sparse = proto.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(outside("../secret.bin", [2]))
    sparse.indices.CopyFrom(weight([2], "", TensorProto.INT64, int64_data=[0, 1]))
    return proto


@CASES.add("outside the model's folder")
def a_secret_in_a_branch(folder: Path) -> ModelProto:
    (folder.parent / "secret.bin").write_bytes(SECRET)
    proto = graph(
        """g (float[1,4] x, bool c) => (float[1,4] y) {
            y = If (c) <then_branch = t () => (float[1,4] p) { p = Add(x, w) },
                        else_branch = e () => (float[1,4] q) { q = Neg(x) }>
        }"""
    )
    body = next(a.g for a in proto.graph.node[0].attribute if a.name == "then_branch")
    body.initializer.append(outside("../secret.bin"))
    return proto


@CASES.add("outside the model's folder|not valid")
def a_secret_in_a_function(folder: Path) -> ModelProto:
    (folder.parent / "secret.bin").write_bytes(SECRET)
    proto = graph(
        "g (float[1,4] x) => (float[1,4] y) { y = own.f(x) }",
        '<opset_import: ["" : 17], domain: "own"> f (a) => (b) { b = Add(a, w) }',
        ', "own" : 1',
    )
    constant = helper.make_node("Constant", [], ["w"], value=outside("../secret.bin"))
    proto.functions[0].node.insert(0, constant)
    return proto


@CASES.add("'w'|not valid")
def fewer_bytes_than_the_shape_needs(folder: Path) -> ModelProto:
    return adding(weight([1, 4], raw_data=FLOATS[:12]))


@CASES.add("'w'|not valid")
def more_bytes_than_the_shape_needs(folder: Path) -> ModelProto:
    return adding(weight([1, 4], raw_data=FLOATS * 2))


@CASES.add("'w'|not valid")
def fewer_numbers_than_the_shape_needs(folder: Path) -> ModelProto:
    return adding(weight([1, 4], float_data=[1.0]))


@CASES.add("'w'|not valid")
def more_numbers_than_the_shape_needs(folder: Path) -> ModelProto:
    return adding(weight([1, 4], float_data=[1.0] * 9))


@CASES.add("'w'|not valid")
def numbers_of_another_type(folder: Path) -> ModelProto:
    return adding(weight([1, 4], int64_data=[1, 2, 3, 4]))


@CASES.add("'w'|not valid")
def numbers_in_two_fields(folder: Path) -> ModelProto:
    return adding(weight([1, 4], raw_data=FLOATS, float_data=[1.0] * 4))


@CASES.add("'w'|not valid")
def no_numbers(folder: Path) -> ModelProto:
    return adding(weight([1, 4]))


@CASES.add("'w'|not valid")
def no_type(folder: Path) -> ModelProto:
    return adding(weight([1, 4], dtype=TensorProto.UNDEFINED, raw_data=FLOATS))


@CASES.add("'w'|not valid")
def an_unknown_type(folder: Path) -> ModelProto:
    return adding(weight([1, 4], dtype=999, raw_data=FLOATS))


@CASES.add("'w'|not valid")
def strings_in_raw_data(folder: Path) -> ModelProto:
    return adding(weight([4], dtype=TensorProto.STRING, raw_data=FLOATS))


@CASES.add("'w'|not valid")
def a_negative_dimension(folder: Path) -> ModelProto:
    return adding(weight([-1, 4], raw_data=FLOATS))


@CASES.add("'w'|not valid")
def two_negative_dimensions(folder: Path) -> ModelProto:
    return adding(weight([-1, -4], raw_data=FLOATS))


@CASES.add("'w'|not valid")
def dimensions_of_exabytes(folder: Path) -> ModelProto:
    return adding(weight([HUGE, 4], raw_data=FLOATS))


@CASES.add("'w'|not valid")
def dimensions_whose_product_wraps_to_zero(folder: Path) -> ModelProto:
    return adding(weight([1 << 32, 1 << 32], raw_data=b""))


@CASES.add("'w'|not valid")
def dimensions_whose_product_wraps_to_four(folder: Path) -> ModelProto:
    return adding(weight([HUGE, 4, 4, 1], raw_data=FLOATS))


@CASES.add("'w'|not valid")
def exabytes_of_numbers_that_are_not_there(folder: Path) -> ModelProto:
    return adding(weight([HUGE, 4]))


@CASES.add(None)
def a_dimension_of_zero(folder: Path) -> ModelProto:
    proto = graph("g (float[2,4] x) => (float[2,4] y) { z = Concat<axis = 0>(x, w) y = Relu(z) }")
    proto.graph.initializer.append(weight([0, 4]))
    return proto


@CASES.add("'w'|not valid")
def a_dimension_of_zero_with_numbers(folder: Path) -> ModelProto:
    proto = graph("g (float[2,4] x) => (float[2,4] y) { z = Concat<axis = 0>(x, w) y = Relu(z) }")
    proto.graph.initializer.append(weight([0, 4], raw_data=FLOATS))
    return proto


@CASES.add(None)
def a_dimension_of_zero_and_one_of_exabytes(folder: Path) -> ModelProto:
    proto = graph("g (float[2,4] x) => (float[2,4] y) { z = Shape(w) y = Relu(x) }")
    proto.graph.initializer.append(weight([0, HUGE]))
    return proto


@CASES.add("not valid|cannot be|too large|memory")
def an_input_of_exabytes(folder: Path) -> ModelProto:
    return graph(f"g (float[{HUGE},{HUGE}] x) => (float[{HUGE},{HUGE}] y) {{ y = Relu(x) }}")


@CASES.add(None)  # ONNX takes it for a free dimension
def an_input_of_negative_size(folder: Path) -> ModelProto:
    proto = graph("g (float[4] x) => (float[4] y) { y = Relu(x) }")
    proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -4
    return proto


@CASES.add("not valid|sparse")
def a_sparse_weight_whose_indices_lie_outside(folder: Path) -> ModelProto:
    proto = graph("g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }")
    sparse = proto.graph.sparse_initializer.add(dims=[4])
    sparse.values.CopyFrom(weight([2], float_data=[1, 2]))
    sparse.indices.CopyFrom(weight([2], "", TensorProto.INT64, int64_data=[0, HUGE]))
    return proto


@CASES.add("no machine holds")
def a_sparse_weight_of_exabytes(folder: Path) -> ModelProto:
    proto = graph("g (float[N,4] x) => (float[N,4] y) { y = Add(x, w) }")
    sparse = proto.graph.sparse_initializer.add(dims=[HUGE])
    sparse.values.CopyFrom(weight([2], float_data=[1, 2]))
    sparse.indices.CopyFrom(weight([2], "", TensorProto.INT64, int64_data=[0, 1]))
    return proto
