"""If, Loop and Scan with captures, nested bodies, sequences, and model-local functions."""

from __future__ import annotations

import numpy as np
from onnx import AttributeProto, NodeProto, TensorProto, helper

from tests.fuzz import forms
from tests.fuzz.builder import Builder, Tensor, reference
from tests.fuzz.draw import Draw
from tests.fuzz.registry import FLOAT, FLOATS, RANKED, Made, snippet

BOOL, INT64 = TensorProto.BOOL, TensorProto.INT64
FUNCTION_DOMAIN = "fuzz.local"


def _work(d: Draw, b: Builder, x: Tensor, depth: int) -> Tensor:
    """A few shape-preserving operators inside a body; reads outer tensors, and may nest another If."""
    for _ in range(d.integer(0, 2)):
        how = d.choice(["relu", "add", "scale", "identity", "outer", "twice", "nested", "dead"])
        outer = [t for t in b.visible() if t.dtype == FLOAT and t.shape == x.shape]
        if how == "add":
            x = b.emit("Add", x, b.floats(*x.shape[-1:]))
        elif how == "scale":
            x = b.emit("Mul", x, b.constant(np.float32(d.choice([1.0, 0.5]))))
        elif how == "outer" and outer:
            x = b.emit("Add", x, d.choice(outer))
        elif how == "twice":
            x = b.emit("Add", b.emit("Tanh", x), b.emit("Tanh", x))
        elif how == "nested" and depth < 2:
            x = branch(d, b, x, depth + 1)
        elif how == "dead":
            b.emit("Exp", x)
        else:
            x = b.emit("Identity" if how == "identity" else "Relu", x)
    return x


def branch(d: Draw, b: Builder, x: Tensor, depth: int = 0) -> Tensor:
    """If with a constant or a run-time condition; a branch may return a captured tensor or a constant of its own."""
    sides = []
    for _ in range(2):
        body = b.body()
        how = d.integer(0, 5)
        if how == 4:
            made = body.emit("Identity", x)
        elif how == 5:
            made = body.floats(*x.shape)
            if all(init.name != made.name for init in body.initializers) or d.chance(50):
                made = body.emit("Identity", made)
        else:
            made = _work(d, body, body.emit("Neg", x), depth)
        sides.append(body.attribute_graph(d.choice(["body", "then", ""]) or "g", [made]))
    condition = b.constant(np.array(d.chance(50)), structural=True) if d.chance(50) else b.input(BOOL, ())
    return b.emit("If", condition, then_branch=sides[0], else_branch=sides[1], types=[(x.dtype, x.shape)])


@snippet("if", 12, FLOATS)
def conditional(d: Draw, b: Builder, x: Tensor) -> Made:
    return branch(d, b, x)


@snippet("if on a computed condition", 4, RANKED, since=11)
def computed_condition(d: Draw, b: Builder, x: Tensor) -> Made:
    """The condition can be folded: it asks for the rank or size of a static shape."""
    size = b.emit("Size", x)
    condition = b.emit(
        d.choice(["Greater", "Equal", "Less"]), size, b.constant(np.array(x.size, np.int64), structural=True)
    )
    then_body, else_body = b.body(), b.body()
    one = then_body.attribute_graph("then", [then_body.emit("Relu", x)])
    two = else_body.attribute_graph("else", [_work(d, else_body, else_body.emit("Identity", x), 1)])
    return b.emit("If", condition, then_branch=one, else_branch=two, types=[(x.dtype, x.shape)])


@snippet("loop", 8, FLOATS)
def loop(d: Draw, b: Builder, x: Tensor) -> Made:
    """Loop with one carried tensor; a scan output in some cases; trip count constant, zero, or an input."""
    body = b.body()
    step, going = Tensor(b.fresh("step"), INT64, ()), Tensor(b.fresh("going"), BOOL, ())
    carried = Tensor(b.fresh("carried"), x.dtype, x.shape)
    inner = body.emit("Add", carried, x) if d.chance(40) else body.emit("Mul", carried, body.constant(np.float32(0.5)))
    inner = _work(d, body, inner, 1)
    still = body.emit("Identity", going)
    trips, scanned = d.choice([2, 1, 3, 0]), d.chance(40)
    results = [still, inner, *([body.emit("Identity", inner)] if scanned else [])]
    graph = body.attribute_graph("loop", results, [step, going, carried])
    limit = b.constant(np.array(trips, np.int64), structural=True)
    if d.chance(30):
        limit = b.input(INT64, (), (trips, trips))
    start = None if d.chance(50) else b.constant(np.array(True), structural=True)
    types: list[tuple[int, tuple[int, ...]]] = [(x.dtype, x.shape)]
    if scanned:
        types.append((x.dtype, (trips, *x.shape)))
    return b.emit("Loop", limit, start, x, outputs=len(types), types=types, body=graph)


@snippet("scan", 6, RANKED, since=9)
def scan(d: Draw, b: Builder, x: Tensor) -> Made:
    if x.shape[0] == 0:
        return None
    row = x.shape[1:]
    body = b.body()
    state, element = Tensor(b.fresh("state"), FLOAT, row), Tensor(b.fresh("row"), FLOAT, row)
    summed = body.emit("Add", state, element)
    result = _work(d, body, body.emit("Identity", summed), 1)
    graph = body.attribute_graph("scan", [summed, result], [state, element])
    start = b.constant(np.zeros(row, np.float32)) if d.chance(70) else b.input(FLOAT, row)
    extra = {"scan_input_directions": [1]} if d.chance(30) else {}
    types = [(FLOAT, row), (FLOAT, x.shape)]
    return b.emit("Scan", start, x, outputs=2, types=types, body=graph, num_scan_inputs=1, **extra)


@snippet("captured weight", 6, RANKED)
def captured_weight(d: Draw, b: Builder, x: Tensor) -> Made:
    """A constant of the main graph that is read inside a body and outside of it."""
    w = b.floats(x.shape[-1])
    seen = b.emit("Add", x, w)
    then_body, else_body = b.body(), b.body()
    one = then_body.attribute_graph("then", [then_body.emit("Mul", x, w)])
    two = else_body.attribute_graph("else", [else_body.emit("Sub", seen, w)])
    return b.emit("If", b.input(BOOL, ()), then_branch=one, else_branch=two, types=[(x.dtype, x.shape)])


@snippet("sequence", 3, RANKED, since=11)
def sequence(d: Draw, b: Builder, x: Tensor) -> Made:
    """SplitToSequence and SequenceAt written by hand: inference of the builder knows tensors only."""
    axis = d.integer(0, x.rank - 1)
    if x.shape[axis] < 2:
        return None
    name = b.fresh("sequence")
    split = helper.make_node("SplitToSequence", [x.name], [name], axis=axis, keepdims=1)
    b.nodes.append(split)
    index = b.constant(np.array(d.choice([0, 1, -1]), np.int64), structural=True)
    listed = Tensor(name, FLOAT, (1,))
    shape = [*x.shape]
    shape[axis] = 1
    return b.emit("SequenceAt", listed, index, types=[(FLOAT, shape)])


def _function_nodes(d: Draw) -> tuple[list[NodeProto], list[AttributeProto], list[str]]:
    """A body over x -> y whose attribute `slope` is either read by reference or left alone."""
    leaky = helper.make_node("LeakyRelu", ["x"], ["t"])
    leaky.attribute.append(reference("alpha", "slope", AttributeProto.FLOAT))
    nodes = [leaky, helper.make_node("Mul", ["t", "t"], ["y"])]
    if d.chance(50):
        nodes = [
            leaky,
            helper.make_node("Constant", [], ["c"], value_float=d.choice([1.0, 0.5])),
            helper.make_node("Mul", ["t", "c"], ["y"]),
        ]
    if d.chance(40):
        return nodes, [], ["slope"]
    return nodes, [helper.make_attribute("slope", 0.25)], []


@snippet("function", 8, FLOATS, since=13, rules=("inline-function",))
def function(d: Draw, b: Builder, x: Tensor) -> Made:
    """A call of a model-local function, with an attribute by reference or by default, and an opset of its own."""
    if b.shared.ir_version < 8:
        return None
    name = f"Leak{len(b.shared.functions)}"
    nodes, defaults, required = _function_nodes(d)
    older = max(16, b.opset - 1) if len(nodes) == 2 else b.opset  # Constant differs between neighbouring opsets
    version = d.choice([b.opset, older])
    imports = [helper.make_opsetid("", min(version, b.opset))]
    if d.chance(30) and b.shared.functions:
        inner = b.shared.functions[-1]
        call = helper.make_node(inner.name, ["y"], ["z"], domain=FUNCTION_DOMAIN)
        call.attribute.extend([helper.make_attribute("slope", 0.125)])
        nodes, result = [*nodes, call], "z"
        imports.append(helper.make_opsetid(FUNCTION_DOMAIN, 1))
        if inner.opset_import[0].version != min(version, b.opset):
            return None
    else:
        result = "y"
    proto = helper.make_function(FUNCTION_DOMAIN, name, ["x"], [result], nodes, imports, required, defaults)
    b.shared.functions.append(proto)
    b.shared.imports[FUNCTION_DOMAIN] = 1
    given = {"slope": d.choice([0.1, 0.0])} if required or d.chance(40) else {}
    y = b.emit(name, x, domain=FUNCTION_DOMAIN, types=[(x.dtype, x.shape)], **given)
    if d.chance(40):
        y = b.emit(name, b.between(y), domain=FUNCTION_DOMAIN, types=[(x.dtype, x.shape)], **given)
    return forms.activation(d, b, y, "Relu") if d.chance(30) else y
