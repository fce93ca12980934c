"""Random nests of Split, Slice and Concat, and random groups of convs: the numbers stay whatever the pass does."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import ModelProto

from graphopt_passes.concats import ElideConcats
from graphopt_passes.concats.grouped import GroupConvs
from tests.support.models import feeds, model, run
from tests.support.rewrites import apply, apply_pass

SETTINGS = settings(derandomize=True, max_examples=80, deadline=None)


def check(before: ModelProto, after: ModelProto, exact: bool) -> None:
    for seed in range(2):
        given_inputs = feeds(before, seed)
        for expected, got in zip(run(before, given_inputs), run(after, given_inputs), strict=True):
            assert expected.shape == got.shape
            if exact:
                np.testing.assert_array_equal(got, expected)
            else:
                np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)


class Nest:
    """Text of a graph of movements; every tensor is float[2, size, 2] with a known size."""

    def __init__(self, draw: st.DrawFn) -> None:
        self.draw = draw
        self.lines: list[str] = []
        self.sizes = {"x": draw(st.integers(2, 6)), "z": draw(st.integers(1, 3))}
        self.constants: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.int64]]] = {}
        self.inputs = dict(self.sizes)

    def name(self, size: int) -> str:
        name = f"t{len(self.sizes)}"
        self.sizes[name] = size
        return name

    def ints(self, *values: int) -> str:
        name = "k" + "_".join(str(v).replace("-", "m") for v in values)
        self.constants[name] = np.array(values, np.int64)
        return name

    def pick(self, least: int = 0) -> str:
        return self.draw(st.sampled_from([n for n, size in self.sizes.items() if size >= least]))

    def axis(self) -> int:
        return self.draw(st.sampled_from([1, -2]))

    def split(self) -> None:
        source = self.pick(2)
        size = self.sizes[source]
        borders = sorted(self.draw(st.sets(st.integers(1, size - 1), min_size=1, max_size=2)))
        parts = [b - a for a, b in zip([0, *borders], [*borders, size], strict=True)]
        names = ", ".join(self.name(p) for p in parts)
        self.lines.append(f"{names} = Split<axis={self.axis()}>({source}, {self.ints(*parts)})")

    def slice(self) -> None:
        source = self.pick(1)
        size = self.sizes[source]
        low = self.draw(st.integers(-size, size - 1))
        high = self.draw(st.sampled_from([*range(-size, size + 1), 99]))
        step = self.draw(st.sampled_from([1, 1, 1, 2]))
        taken = len(range(size)[low:high:step])
        if not taken:
            return
        arguments = [self.ints(low), self.ints(high), self.ints(self.axis()), self.ints(step)]
        self.lines.append(f"{self.name(taken)} = Slice({source}, {', '.join(arguments)})")

    def concat(self) -> None:
        parts = [self.pick(1) for _ in range(self.draw(st.integers(1, 4)))]
        total = sum(self.sizes[p] for p in parts)
        if total <= 24:
            self.lines.append(f"{self.name(total)} = Concat<axis={self.axis()}>({', '.join(parts)})")

    def whole(self) -> None:
        """A Split whose parts meet again, in order or not."""
        before = len(self.sizes)
        self.split()
        parts = list(self.sizes)[before:]
        if self.draw(st.booleans()):
            parts.reverse()
        total = sum(self.sizes[p] for p in parts)
        self.lines.append(f"{self.name(total)} = Concat<axis={self.axis()}>({', '.join(parts)})")

    def point(self) -> None:
        source = self.pick()
        self.lines.append(f"{self.name(self.sizes[source])} = {self.draw(st.sampled_from(['Neg', 'Relu']))}({source})")

    def model(self) -> ModelProto:
        made = [n for n in self.sizes if n not in self.inputs]
        outputs = self.draw(st.lists(st.sampled_from(made), min_size=1, max_size=3, unique=True))
        inputs = ", ".join(f"float[2,{size},2] {name}" for name, size in self.inputs.items())
        listed = ", ".join(f"float[2,{self.sizes[n]},2] {n}" for n in outputs)
        return model(f"g ({inputs}) => ({listed}) {{ " + "\n".join(self.lines) + " }", self.constants)


@st.composite
def nests(draw: st.DrawFn) -> ModelProto:
    nest = Nest(draw)
    nest.split()
    for step in draw(st.lists(st.sampled_from(["split", "slice", "concat", "concat", "whole", "point"]), max_size=8)):
        getattr(nest, step)()
    return nest.model()


@given(nests())
@SETTINGS
def test_movements_stay_what_they_are(before: ModelProto) -> None:
    after, _ = apply_pass(ElideConcats(), before)
    assert len(after.graph.node) <= len(before.graph.node) + 1
    check(before, after, exact=True)
    _, log = apply_pass(ElideConcats(), after)
    assert not log.applications, [a.rule for a in log.applications]


@st.composite
def groups(draw: st.DrawFn) -> tuple[ModelProto, bool]:
    """Convs on parts of a tensor that meet in a Concat; whether they are one grouped conv."""
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    count, width, outputs = draw(st.integers(2, 4)), draw(st.integers(1, 3)), draw(st.integers(1, 3))
    kernel, stride = draw(st.sampled_from([1, 3])), draw(st.sampled_from([1, 2]))
    odd = draw(st.sampled_from(["", "", "", "outputs", "stride", "order", "reader"]))
    lines, ends = [], []
    weights: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]] = {}
    names = ", ".join(f"p{i}" for i in range(count))
    lines.append(f"{names} = Split<axis=1>(x)")
    for i in range(count):
        o = outputs + (odd == "outputs" and i == 0)
        weights[f"w{i}"] = rng.standard_normal((o, width, kernel, kernel)).astype(np.float32)
        inputs = f"p{i}, w{i}"
        if draw(st.booleans()):
            weights[f"b{i}"] = rng.standard_normal(o).astype(np.float32)
            inputs += f", b{i}"
        dilation = 2 if odd == "stride" and i == 0 and kernel > 1 else 1
        pad = dilation * (kernel // 2)
        lines.append(
            f"c{i} = Conv<strides=[{stride},{stride}], dilations=[{dilation},1], "
            f"pads=[{pad},{kernel // 2},{pad},{kernel // 2}]>({inputs})"
        )
        lines.append(f"r{i} = Relu(c{i})")
        ends.append(f"r{i}")
    if odd == "order":
        ends.reverse()
    lines.append(f"y = Concat<axis=1>({', '.join(ends)})")
    outputs_text = "float[A,B,C,D] y"
    if odd == "reader":
        lines.append("z = Neg(c0)")
        outputs_text += ", float[E,F,G,H] z"
    text = f"g (float[1,{count * width},6,5] x) => ({outputs_text}) {{ " + "\n".join(lines) + " }"
    fires = odd in ("", "order") or (odd == "stride" and kernel == 1)
    return model(text, weights), fires and not (odd == "order" and count >= 2)


@given(groups())
@SETTINGS
def test_groups_are_right_or_left_alone(drawn: tuple[ModelProto, bool]) -> None:
    before, fires = drawn
    after, log = apply(GroupConvs(), before)
    if fires:
        assert sorted(n.op_type for n in after.graph.node) == ["Conv", "Relu"]
    if not log.applications:
        assert after == before
    check(before, after, exact=False)
    whole, _ = apply_pass(ElideConcats(), before)
    check(before, whole, exact=False)
