"""The hand-off to TensorRT: parse check, build, engine facts, comparison. Imports TensorRT when it is first used."""

from __future__ import annotations

from graphopt.tensorrt.build import Engine, build_engine
from graphopt.tensorrt.facts import EngineFacts, LayerFacts, TensorFacts
from graphopt.tensorrt.flavour import Flavour, installed_flavour, prepare_polygraphy
from graphopt.tensorrt.parse import ParseReport, RefusedNode, check_parse
from graphopt.tensorrt.shapes import ShapeRange, parse_shape

__all__ = [
    "Engine",
    "EngineFacts",
    "Flavour",
    "LayerFacts",
    "ParseReport",
    "RefusedNode",
    "ShapeRange",
    "TensorFacts",
    "build_engine",
    "check_parse",
    "installed_flavour",
    "parse_shape",
    "prepare_polygraphy",
]
