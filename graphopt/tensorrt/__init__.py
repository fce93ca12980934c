"""The hand-off to TensorRT: parse check, build, engine facts, comparison. Imports TensorRT when it is first used."""

from __future__ import annotations

from graphopt.tensorrt.build import Engine, build_engine, default_shapes
from graphopt.tensorrt.comparison import EngineComparison, OutputComparison, compare
from graphopt.tensorrt.facts import EngineFacts, LayerFacts, TensorFacts
from graphopt.tensorrt.flavour import Flavour, installed_flavour, prepare_polygraphy
from graphopt.tensorrt.parse import ParseReport, RefusedNode, check_parse
from graphopt.tensorrt.shapes import ShapeRange, parse_shape

__all__ = [
    "Engine",
    "EngineComparison",
    "EngineFacts",
    "Flavour",
    "LayerFacts",
    "OutputComparison",
    "ParseReport",
    "RefusedNode",
    "ShapeRange",
    "TensorFacts",
    "build_engine",
    "check_parse",
    "compare",
    "default_shapes",
    "installed_flavour",
    "parse_shape",
    "prepare_polygraphy",
]
