"""Feature maps that become sequences, for TensorRT."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt.targets import Target
from graphopt_passes.fused.maps import TransposeMapBeforeFlattening
from tests.support.models import model
from tests.support.rewrites import apply, check_numbers, check_rewrite, check_untouched

RULE = TransposeMapBeforeFlattening()
NUMBERS = {
    "flat": (2, 3, 20),
    "open": (0, 3, -1),
    "copied": (0, 0, -1),
    "rows": (2, 12, 5),
    "matrix": (6, 20),
    "four": (2, 3, 2, 10),
}


def graph(text: str, inputs: str = "float[2,3,4,5] x", outputs: str = "", dims: str = "A,B,C") -> ModelProto:
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    weights = {k: np.array(v, np.int64) for k, v in NUMBERS.items() if k in words}
    return model(f"g ({inputs}) => (float[{dims}] y{outputs}) {{ {text} }}", weights)


def turned(shape: str = "flat", perm: str = "0,2,1") -> str:
    return f"r = Reshape(x, {shape}) y = Transpose<perm=[{perm}]>(r)"


@pytest.mark.parametrize(
    ("shape", "inputs"),
    [
        ("flat", "float[2,3,4,5] x"),
        ("open", "float[2,3,4,5] x"),
        ("copied", "float[N,3,4,5] x"),
        ("open", "float[N,3,4,5] x"),
        ("copied", "float[2,3,H,5] x"),
    ],
)
def test_the_map_is_turned_before_it_is_flattened(shape: str, inputs: str) -> None:
    after = f"g ({inputs}) => (float[A,B,C] y) {{ t = Transpose<perm=[0,2,3,1]>(x) y = Reshape(t, target) }}"
    check_rewrite(RULE, graph(turned(shape), inputs), after)


@pytest.mark.parametrize(
    ("why", "before", "because"),
    [
        ("another permutation", graph(turned(perm="1,0,2")), "turn a sequence"),
        ("channels change", graph(turned("rows")), "may not keep"),
        ("another rank", graph(turned("four", "0,2,1,3"), dims="A,B,C,D"), "turn a sequence"),
        ("the sequence is an output", graph(turned(), outputs=", float[D,E,F] r"), "reads alone"),
        ("the sequence is read elsewhere", graph(turned() + " z = Relu(r)", outputs=", float[D,E,F] z"), "reads alone"),
        ("no map", graph(turned(), "float[6,20] x"), "a map into a sequence"),
        ("unknown channels", graph(turned("copied"), "float[2,C,4,5] x"), "may not keep"),
        ("batch and map unknown", graph(turned("copied"), "float[N,3,H,5] x"), "shape is not known"),
        ("no Reshape",
         graph("r = Relu(x) y = Transpose<perm=[0,2,1]>(r)", "float[2,3,20] x"), "no Reshape"),
    ],
)  # fmt: skip
def test_leaves_alone(why: str, before: ModelProto, because: str) -> None:
    check_untouched(RULE, before, because)


@pytest.mark.parametrize("target", [Target.ONNXRUNTIME, Target.PORTABLE])
def test_only_for_tensorrt(target: Target) -> None:
    check_untouched(RULE, graph(turned()), "TensorRT is not the target", target=target)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(st.tuples(*[st.integers(1, 4)] * 4), st.sampled_from(["", "N", "H"]), st.booleans())
def test_random_maps(shape: tuple[int, ...], unknown: str, copies: bool) -> None:
    names = {"N": 0, "H": 2}
    dims = [unknown if i == names.get(unknown) else str(d) for i, d in enumerate(shape)]
    target = (0, 0, -1) if copies else (shape[0] if unknown != "N" else 0, shape[1], -1)
    before = model(
        f"g (float[{','.join(dims)}] x) => (float[A,B,C] y) {{ r = Reshape(x, s) y = Transpose<perm=[0,2,1]>(r) }}",
        {"s": np.array(target, np.int64)},
    )
    result, log = apply(RULE, before)
    assert len(log.applications) == 1
    check_numbers(before, result, exact=True)
