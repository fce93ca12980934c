"""Bringing a model to a newer operator set of the standard, node by node, through onnx's version converter."""

from graphopt.upgrade.upgrade import UPGRADE, upgrade

__all__ = ["UPGRADE", "upgrade"]
