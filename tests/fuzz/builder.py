"""A graph under construction: typed tensors, fresh names, constants in all their spellings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference

from tests.fuzz.draw import Draw

LARGEST_TENSOR = 20_000
_LARGEST_SHAPE_VALUE = 64


class RejectedError(Exception):
    """The operator does not exist in this opset or does not take these inputs; the snippet is taken back."""


@dataclass(frozen=True, eq=False)
class Tensor:
    """A tensor of the graph: its name, ONNX element type, and its shape when the inputs have their drawn sizes."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    value: np.ndarray | None = None

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        return helper.tensor_dtype_to_np_dtype(self.dtype)


@dataclass
class Names:
    """Fresh names in one of several odd styles; no tensor name is handed out twice in a model."""

    tensors: str = "plain"
    nodes: str = "unique"
    count: int = 0

    def tensor(self, hint: str) -> str:
        self.count += 1
        return {
            "plain": f"{hint}_{self.count}",
            "number": f"{self.count}",
            "path": f"/layer.{self.count % 3}/{hint}/{hint}_output_{self.count}",
            "unicode": f"тензор·{hint}·名é{self.count}",
            "generated": f"{hint}_0_{self.count}" if self.count % 2 else f"graphopt_{hint}_fused_{self.count}",
            "hostile": f'a "b": %s\n\x1b[31m{hint} {self.count}',
        }[self.tensors]

    def node(self, op: str, output: str) -> str:
        return {"unique": f"{op}_{self.count}", "empty": "", "duplicate": "node", "output": output, "op": op}[
            self.nodes
        ]


@dataclass
class Shared:
    """What all graphs of one model have in common."""

    opset: int
    ir_version: int
    names: Names
    imports: dict[str, int] = field(default_factory=dict)
    functions: list[FunctionProto] = field(default_factory=list)
    ranges: dict[str, tuple[int, int]] = field(default_factory=dict)
    special_values: bool = False
    symbols: dict[str, list[int | str | None]] = field(default_factory=dict)  # dimensions of inputs that are to be free


@lru_cache(maxsize=4096)
def _schema(op: str, opset: int, domain: str) -> onnx.defs.OpSchema:
    try:
        schema = onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError as error:
        raise RejectedError(f"{op} is not in opset {opset}") from error
    if schema.deprecated:
        raise RejectedError(f"{op} is deprecated in opset {opset}")
    return schema


def type_of(dtype: int, shape: Sequence[int]) -> onnx.TypeProto:
    return helper.make_tensor_type_proto(dtype, tuple(shape))


class Builder:
    """One graph (the main graph or a body). `pool` holds what later operators may read."""

    def __init__(self, draw: Draw, shared: Shared, outer: Builder | None = None) -> None:
        self.draw = draw
        self.shared = shared
        self.outer = outer
        self.nodes: list[NodeProto] = []
        self.initializers: list[TensorProto] = []
        self.inputs: list[Tensor] = []
        self.overridable: list[Tensor] = []
        self.pool: list[Tensor] = []
        self.outputs: list[Tensor] = []
        self.constants: list[Tensor] = []

    @property
    def opset(self) -> int:
        return self.shared.opset

    def fresh(self, hint: str) -> str:
        return self.shared.names.tensor(hint)

    def has(self, op: str, since: int = 1) -> bool:
        """Whether the model's opset has the operator and is at least `since`."""
        try:
            return self.opset >= since and _schema(op, self.opset, "") is not None
        except RejectedError:
            return False

    def input(self, dtype: int, shape: Sequence[int], span: tuple[int, int] | None = None) -> Tensor:
        """A new input of the main graph; `span` bounds the integers that it is fed with."""
        if self.outer is not None:
            return self.outer.input(dtype, shape, span)
        tensor = Tensor(self.fresh("in"), dtype, tuple(shape))
        self.inputs.append(tensor)
        if span is not None:
            self.shared.ranges[tensor.name] = span
        return tensor

    def floats(self, *shape: int, scale: float = 1.0, dtype: int = TensorProto.FLOAT) -> Tensor:
        """A constant of normal values."""
        values = self.draw.floats(shape, scale, helper.tensor_dtype_to_np_dtype(dtype))
        if self.shared.special_values and values.size and self.draw.chance(20):
            values.flat[0] = self.draw.choice([np.inf, -np.inf, np.nan])
        return self.constant(values)

    def ints(self, *values: int, dtype: Any = np.int64) -> Tensor:
        """A constant vector of whole numbers (shapes, axes, indices)."""
        return self.constant(np.array(values, dtype=dtype), structural=True)

    def constant(self, value: np.ndarray, structural: bool = False) -> Tensor:
        """A constant: an initializer, one seen before, a Constant node or, unless structural, an overridable one."""
        value = np.asarray(value)
        if self.outer is not None and self.shared.ir_version < 4:
            return self.outer.constant(value, structural)  # bodies have no inputs that an initializer could name
        how = self.draw.integer(0, 19)
        if how == 17 and (same := self._equal_constant(value)) is not None:
            return same
        dtype = helper.np_dtype_to_tensor_dtype(value.dtype)
        name = self.fresh("const")
        if how in (15, 16) and (self.opset >= 9 or value.dtype.kind == "f"):  # the first Constant made floats only
            return self._constant_node(name, dtype, value)
        proto = numpy_helper.from_array(value, name)
        self.initializers.append(proto)
        if how == 19 and self.outer is None and not structural and self.shared.ir_version >= 4:
            tensor = Tensor(name, dtype, value.shape)
            self.overridable.append(tensor)
            return tensor
        tensor = Tensor(name, dtype, value.shape, value)
        self.constants.append(tensor)
        return tensor

    def _equal_constant(self, value: np.ndarray) -> Tensor | None:
        for seen in self.constants:
            alike = seen.value is not None and seen.value.dtype == value.dtype and seen.shape == value.shape
            if alike and seen.value is not None and seen.value.tobytes() == value.tobytes():
                return seen
        return None

    def _constant_node(self, name: str, dtype: int, value: np.ndarray) -> Tensor:
        attribute: dict[str, Any] = {"value": numpy_helper.from_array(value, "")}
        if self.opset >= 12 and value.ndim <= 1 and value.size and self.draw.chance(50):
            kind = {TensorProto.FLOAT: "float", TensorProto.INT64: "int"}.get(dtype)
            if kind is not None:
                attribute = {f"value_{kind}s": value.tolist()} if value.ndim else {f"value_{kind}": value.item()}
        node = helper.make_node("Constant", [], [name], self.shared.names.node("Constant", name), **attribute)
        self.nodes.append(node)
        return Tensor(name, dtype, value.shape, value)

    def expose(self, tensor: Tensor) -> Tensor:
        """Make a tensor in the middle of a chain an output of the graph."""
        if all(tensor is not known for known in self.outputs):
            self.outputs.append(tensor)
        return tensor

    def between(self, tensor: Tensor) -> Tensor:
        """Near miss: now and then the tensor inside a pattern gets a second consumer or is an output too."""
        roll = self.draw.integer(0, 29)
        if roll == 28:
            self.expose(tensor)
        elif roll == 29:
            self.pool.append(tensor)
        return tensor

    def emit(
        self,
        op: str,
        *inputs: Tensor | None,
        outputs: int = 1,
        domain: str = "",
        types: Sequence[tuple[int, Sequence[int]]] | None = None,
        **attributes: Any,
    ) -> Any:
        """Add a node; one Tensor, or a tuple when several outputs are asked for.

        `types` are the outputs' types where inference can not know them. Raises RejectedError when the operator's
        shape inference does, when a dimension stays unknown, or when the result is too large.
        """
        read = [tensor.name if tensor is not None else "" for tensor in inputs]
        while read and not read[-1]:
            read.pop()
        written = [self.fresh(op.lower()) for _ in range(outputs)]
        node = helper.make_node(op, read, written, self.shared.names.node(op, written[0]), domain=domain, **attributes)
        known = list(types) if types is not None else self._infer(node, [t for t in inputs if t is not None])
        made = tuple(Tensor(name, dtype, tuple(shape)) for name, (dtype, shape) in zip(written, known, strict=True))
        if any(tensor.size > LARGEST_TENSOR for tensor in made):
            raise RejectedError(f"{op} makes a tensor that is too large")
        self.nodes.append(node)
        return made if outputs > 1 else made[0]

    def _infer(self, node: NodeProto, inputs: Sequence[Tensor]) -> list[tuple[int, tuple[int, ...]]]:
        version = self.opset if node.domain == "" else self.shared.imports[node.domain]
        schema = _schema(node.op_type, version, node.domain)
        data = {
            tensor.name: numpy_helper.from_array(tensor.value, tensor.name)
            for tensor in inputs
            if tensor.value is not None and tensor.size <= _LARGEST_SHAPE_VALUE
        }
        types = {tensor.name: type_of(tensor.dtype, tensor.shape) for tensor in inputs}
        imports = [helper.make_opsetid("", self.opset), helper.make_opsetid(node.domain, version)]
        try:
            found = shape_inference.infer_node_outputs(schema, node, types, data, None, imports, 10)
        except Exception as error:  # the binding raises several unrelated types
            raise RejectedError(f"{node.op_type}: {error}") from error
        return [_static(node, found.get(name)) for name in node.output]

    def attribute_graph(self, name: str, outputs: Sequence[Tensor], inputs: Sequence[Tensor] = ()) -> onnx.GraphProto:
        """This builder's content as the body of a control-flow node."""
        return helper.make_graph(
            self.nodes,
            name,
            [helper.make_value_info(t.name, type_of(t.dtype, t.shape)) for t in inputs],
            [helper.make_value_info(t.name, type_of(t.dtype, t.shape)) for t in outputs],
            self.initializers,
        )

    def body(self) -> Builder:
        """A body nested in this graph; it can read this graph's tensors."""
        return Builder(self.draw, self.shared, self)

    def visible(self) -> list[Tensor]:
        """Tensors of this graph and of the ones around it."""
        return [*(self.outer.visible() if self.outer else []), *self.pool]


def _static(node: NodeProto, found: onnx.TypeProto | None) -> tuple[int, tuple[int, ...]]:
    if found is None or not found.HasField("tensor_type") or not found.tensor_type.HasField("shape"):
        raise RejectedError(f"{node.op_type}: the output's shape is not known")
    dims = found.tensor_type.shape.dim
    if any(not dim.HasField("dim_value") for dim in dims):
        raise RejectedError(f"{node.op_type}: a dimension of the output is not known")
    if any(dim.dim_value < 0 for dim in dims):
        raise RejectedError(f"{node.op_type}: a dimension of the output is negative")
    return found.tensor_type.elem_type, tuple(dim.dim_value for dim in dims)


def reference(name: str, attribute: str, kind: int) -> AttributeProto:
    """An attribute of a function's node that takes its value from the function's own attribute."""
    return AttributeProto(name=name, ref_attr_name=attribute, type=kind)
