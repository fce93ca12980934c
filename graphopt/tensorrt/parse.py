"""The parse check: whether TensorRT's ONNX parser takes a model, and if not, which nodes it refuses and why."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import onnx

from graphopt.errors import EngineError
from graphopt.external import printable
from graphopt.tensorrt.flavour import FULL, Flavour, load_tensorrt
from graphopt.tensorrt.record import Record, logger_for, plain_reason
from graphopt.tensorrt.source import open_source

_NO_BRACES = str.maketrans("{}", "()")
_NAMED = 3  # refused nodes that one sentence names


@dataclass(frozen=True)
class RefusedNode:
    """A node that the parser does not take; `index` is its place in the graph, -1 when the whole model is meant."""

    index: int
    name: str
    op_type: str
    reason: str

    def __str__(self) -> str:
        if self.index < 0 and not self.op_type:
            return self.reason
        label = f"'{printable(self.name)}'" if self.name else f"at index {self.index}"
        return f"{printable(self.op_type)} {label} ({self.reason})"


@dataclass(frozen=True)
class ParseReport:
    """What the ONNX parser of TensorRT (`parser`: its name and version) says to a model.

    `refused` has every node whose operator, types or attributes the parser does not take. Where it fails only when it
    infers shapes, it stops at the first such node, so later ones may be missing.
    """

    parser: str
    refused: tuple[RefusedNode, ...]

    @property
    def accepted(self) -> bool:
        """Whether the parser takes the model whole."""
        return not self.refused

    def __str__(self) -> str:
        if self.accepted:
            return f"{self.parser} takes the model."
        more = len(self.refused) - _NAMED
        named = ", ".join(str(node) for node in self.refused[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        return f"{self.parser} does not take the model: {named}."


@dataclass(frozen=True)
class ParsedModel:
    """A TensorRT network and what it needs to live: its builder, its parser, the model's bytes, the record."""

    trt: Any
    flavour: Flavour
    builder: Any
    network: Any
    parser: Any
    data: object
    record: Record


def check_parse(model: onnx.ModelProto | str | os.PathLike[str]) -> ParseReport:
    """Asks TensorRT's ONNX parser about a model. Needs no GPU, builds nothing, leaves the model as it is.

    Raises EngineError when no TensorRT is installed, ModelError when the model cannot be read.
    """
    return _asked(model)[1]


def parse_model(model: onnx.ModelProto | str | os.PathLike[str]) -> ParsedModel:
    """The model as a TensorRT network.

    Raises EngineError, which names the first refused nodes and why, when the parser does not take it; ModelError when
    the model cannot be read.
    """
    parsed, report = _asked(model)
    if not report.accepted:
        raise EngineError(str(report))
    _make_names_plain(parsed.network, parsed.record)
    return parsed


def _asked(model: onnx.ModelProto | str | os.PathLike[str]) -> tuple[ParsedModel, ParseReport]:
    trt, flavour = load_tensorrt()
    source = open_source(model)
    parsed = _empty(trt, flavour)
    refused = tuple(
        RefusedNode(-1, "", "", f"input '{printable(name)}' has no rank and would be taken for a scalar")
        for name in source.unranked_inputs()
    )
    if not refused:
        is_accepted, data = source.feed(parsed.parser)
        parsed = replace(parsed, data=data)
        refused = () if is_accepted else _refused_nodes(parsed)
    return parsed, ParseReport(f"{flavour.title} {trt.__version__}", refused)


def _empty(trt: Any, flavour: Flavour) -> ParsedModel:
    record = Record()
    logger = logger_for(trt, record)
    trt.init_libnvinfer_plugins(logger, "")
    builder = trt.Builder(logger)
    flags = 0
    if flavour is FULL and int(trt.__version__.split(".")[0]) < 11:
        # from 11 on there is nothing else; before, precision would not be what the graph says
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(flags)
    return ParsedModel(trt, flavour, builder, network, trt.OnnxParser(network, logger), None, record)


def _refused_nodes(parsed: ParsedModel) -> tuple[RefusedNode, ...]:
    """The parser's errors, one a node. `supports_model_v2` makes the same list, so it is not asked as well."""
    reasons: dict[tuple[int, str, str], dict[str, None]] = {}
    for error in map(parsed.parser.get_error, range(parsed.parser.num_errors)):
        node = (error.node(), error.node_name(), error.node_operator())
        reasons.setdefault(node, {})[_reason(parsed, error)] = None
    found = tuple(RefusedNode(*node, "; ".join(texts)) for node, texts in reasons.items())
    return found or (RefusedNode(-1, "", "", parsed.record.last_error() or "it gives no reason"),)


def _reason(parsed: ParsedModel, error: Any) -> str:
    operator = error.node_operator()
    if operator and not parsed.parser.supports_operator(operator):
        return "an operator that it does not know"
    return plain_reason(error.desc()) or "a use of the operator that it does not support"


def _make_names_plain(network: Any, record: Record) -> None:
    """No name may look like a line of the engine's listing, in which layers are named after the model's nodes.

    Layers and inner tensors are renamed; inputs and outputs keep their names, the record knows them.
    """
    for layer in map(network.get_layer, range(network.num_layers)):
        layer.name = _plain(layer.name)
        layer.metadata = _plain(layer.metadata)
        for tensor in filter(None, map(layer.get_output, range(layer.num_outputs))):
            if not tensor.is_network_output and _plain(tensor.name) != tensor.name:
                tensor.name = _plain(tensor.name)
    ends = [*map(network.get_input, range(network.num_inputs)), *map(network.get_output, range(network.num_outputs))]
    record.odd_names = {end.name: _plain(end.name) for end in ends if _plain(end.name) != end.name}


def _plain(name: str) -> str:
    """Without control characters (bar TensorRT's metadata separators), `: ` (marks a field), braces (mark a tensor)."""
    clean = "".join(c if c.isprintable() or c in "\x1e\x1f" else "?" for c in name)
    return clean.replace(": ", ":").translate(_NO_BRACES)
