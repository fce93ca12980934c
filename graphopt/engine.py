"""One run of a pipeline over a model: the same source and settings give the same rewrites in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onnx import ModelProto, ValueInfoProto

from graphopt.change import Judge, Log
from graphopt.cost import Decision, TradeJudge
from graphopt.errors import ModelError, ShapeError
from graphopt.external import printable
from graphopt.facts import Facts
from graphopt.flaws import declare_outputs, tidy
from graphopt.graph import Model, import_model
from graphopt.inference import infer_types
from graphopt.instruments import Instrument, PassRecord, Timer
from graphopt.model import check_model
from graphopt.pipeline import Context, Options, PassManager, Pipeline
from graphopt.provenance import stamp
from graphopt.rewrite import Rewriter
from graphopt.thin import ThinModel
from graphopt.upgrade import upgrade
from graphopt.weight_file import Stretch

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Source:
    """A model as it came in: never changed, imported anew for each run.

    `shapes` fixes inputs' dimensions: input name -> numbers. `opset` is the one to bring the model to, if any.
    """

    proto: ModelProto
    folder: Path | None = None
    shapes: Shapes = field(default_factory=dict)
    # by the initializer's index in the main graph: the values that were left in the model's file
    stretches: Mapping[int, Stretch] = field(default_factory=dict)
    opset: int | None = None

    def whole(self) -> ModelProto:
        """The model with all values that its file has. Raises ModelError when the file was written to since."""
        return ThinModel(self.proto, self.stretches).whole()

    def open(self) -> Model:
        """The model as a graph, tidied, checked, shapes fixed, types inferred, upgraded.

        Raises ModelError for a model that is not valid or holds training graphs, ShapeError for a shape that does not
        fit, OpsetError where it cannot be brought to the opset.
        """
        if self.proto.training_info:  # its bindings name weights, which rewrites rename, join and fold
            raise ModelError(
                "the model holds graphs for training (training_info), which optimizing would break; delete them, "
                "or export the model for inference."
            )
        model = import_model(self.proto, self.folder, self.stretches)
        tidy(model)
        fix_shapes(model, self.shapes)
        infer_types(model, check_model(model))
        declare_outputs(model)
        if self.opset is not None:
            upgrade(model, self.opset)
            infer_types(model)
        return model


@dataclass(frozen=True)
class Run:
    """What one run made."""

    model: Model
    records: list[PassRecord]
    log: Log
    decisions: list[Decision]


def run_pipeline(
    source: Source,
    pipeline: Pipeline,
    options: Options,
    *,
    limit: int | None = None,
    excluded: frozenset[str] = frozenset(),
    instruments: Sequence[Instrument] = (),
    judges: Sequence[Judge] = (),
) -> Run:
    """Runs `pipeline` over a fresh import of `source`.

    `limit` stops after that many applications, `excluded` holds keys of applications that must not happen; `judges`
    see each change after the cost model did.
    """
    model = source.open()
    facts = Facts(model, options.target)
    trade = TradeJudge(options)
    edit = Rewriter(model, limit=limit, excluded=excluded, judges=[trade, *judges])
    manager = PassManager(pipeline, [Timer(), *instruments])
    manager.run(Context(model, facts, edit, options))
    stamp(model)
    return Run(model, manager.records, edit.log, trade.decisions)


def fix_shapes(model: Model, shapes: Shapes) -> None:
    """Fixes the dimensions of the inputs that `shapes` names.

    Raises ShapeError for an input that is not there, another rank, or a number that contradicts the model's.
    """
    inputs = {t.name: t for t in model.graph.inputs}
    for name, dims in shapes.items():
        tensor = inputs.get(name)
        if tensor is None:
            known = ", ".join(printable(n) for n in inputs) or "none"
            raise ShapeError(f"the model has no input '{printable(name)}'; its inputs are: {known}.")
        assert tensor.info is not None
        tensor.info = _fixed(tensor.info, dims)


def _fixed(info: ValueInfoProto, dims: Sequence[int]) -> ValueInfoProto:
    name, text = printable(info.name), "x".join(str(d) for d in dims)
    if not info.type.HasField("tensor_type"):
        raise ShapeError(f"input '{name}' is no tensor, so it has no shape to fix.")
    if any(d < 0 for d in dims):
        raise ShapeError(f"shape {text} of input '{name}' has a negative dimension; give numbers from 0 on.")
    if any(d >= 1 << 63 for d in dims):
        raise ShapeError(f"shape {text} of input '{name}' has a dimension beyond the 64 bits that ONNX has for it.")
    result = ValueInfoProto()
    result.CopyFrom(info)
    shape = result.type.tensor_type.shape
    if not info.type.tensor_type.HasField("shape"):
        shape.dim.extend([shape.Dimension() for _ in dims])
    if len(shape.dim) != len(dims):
        raise ShapeError(f"input '{name}' has {len(shape.dim)} dimensions, but shape {text} has {len(dims)}.")
    for old, new in zip(shape.dim, dims, strict=True):
        if old.HasField("dim_value") and old.dim_value >= 0 and old.dim_value != new:
            raise ShapeError(f"input '{name}' is fixed to {old.dim_value} where shape {text} says {new}.")
        old.dim_value = new
    return result
