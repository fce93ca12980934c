"""The graph: nodes and tensors with identity semantics, read from and written to ONNX protobufs."""

from graphopt.graph.constant import (
    Array,
    ArrayConstant,
    Constant,
    FileConstant,
    LazyConstant,
    ProtoConstant,
    SparseConstant,
    bits_of,
    numpy_dtype,
    onnx_dtype,
    raw_bytes,
)
from graphopt.graph.exporter import export_bodies, export_function, export_model, node_proto, value_info
from graphopt.graph.graph import Function, Graph, Model
from graphopt.graph.importer import import_function, import_model
from graphopt.graph.node import AttributeRef, Dim, Node, Shape, Tensor

__all__ = [
    "Array",
    "ArrayConstant",
    "AttributeRef",
    "Constant",
    "Dim",
    "FileConstant",
    "Function",
    "Graph",
    "LazyConstant",
    "Model",
    "Node",
    "ProtoConstant",
    "Shape",
    "SparseConstant",
    "Tensor",
    "bits_of",
    "export_bodies",
    "export_function",
    "export_model",
    "import_function",
    "import_model",
    "node_proto",
    "numpy_dtype",
    "onnx_dtype",
    "raw_bytes",
    "value_info",
]
