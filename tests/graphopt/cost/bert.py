"""An encoder in the form in which exporters write BERT, for the cost model's tests."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import ModelProto

from tests.support.models import model

WIDTHS = {"q": (1, 1), "k": (1, 1), "v": (1, 1), "o": (1, 1), "i": (1, 4), "f": (4, 1)}


def encoder(layers: int = 4, length: int = 128, width: int = 768, heads: int = 12) -> ModelProto:
    """`layers` layers of attention and feed-forward on [N, length, width]; the weights are zeros."""
    body = []
    weights: dict[str, np.ndarray[Any, Any]] = {
        "apart": np.array([0, 0, heads, width // heads]),
        "together": np.array([0, 0, width]),
        "root": np.float32(np.sqrt(width // heads)),
        "one": np.ones(width, np.float32),
    }
    entering = "x"
    for index in range(layers):
        p = f"l{index}"
        for name, (rows, columns) in WIDTHS.items():
            weights[f"{p}w{name}"] = np.zeros((rows * width, columns * width), np.float32)
            weights[f"{p}b{name}"] = np.zeros(columns * width, np.float32)
        body.append(_layer(p, entering))
        entering = f"{p}y"
    shape = f"float[N,{length},{width}]"
    text = f"g ({shape} x, float[N,1,1,{length}] mask) => ({shape} y) {{ {' '.join(body)} y = Identity({entering}) }}"
    return model(text, weights, opset=20)


def _layer(p: str, x: str) -> str:
    heads = "\n".join(
        f"""{p}{n}0 = MatMul({x}, {p}w{n})  {p}{n}1 = Add({p}{n}0, {p}b{n})  {p}{n}2 = Reshape({p}{n}1, apart)
        {p}{n}3 = Transpose<perm={"[0,2,3,1]" if n == "k" else "[0,2,1,3]"}>({p}{n}2)"""
        for n in "qkv"
    )
    return f"""{heads}
        {p}s0 = MatMul({p}q3, {p}k3)  {p}s1 = Div({p}s0, root)  {p}s2 = Add({p}s1, mask)
        {p}s3 = Softmax<axis=-1>({p}s2)  {p}c0 = MatMul({p}s3, {p}v3)  {p}c1 = Transpose<perm=[0,2,1,3]>({p}c0)
        {p}c2 = Reshape({p}c1, together)  {p}o0 = MatMul({p}c2, {p}wo)  {p}o1 = Add({p}o0, {p}bo)
        {p}o2 = Add({p}o1, {x})  {p}o3 = LayerNormalization({p}o2, one, one)
        {p}i0 = MatMul({p}o3, {p}wi)  {p}i1 = Add({p}i0, {p}bi)  {p}i2 = Gelu({p}i1)
        {p}f0 = MatMul({p}i2, {p}wf)  {p}f1 = Add({p}f0, {p}bf)  {p}f2 = Add({p}f1, {p}o3)
        {p}y = LayerNormalization({p}f2, one, one)"""
