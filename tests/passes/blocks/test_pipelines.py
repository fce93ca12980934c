"""Every spelling of a block is still one when the whole pipeline has been over it, for every target.

Other passes write products and quotients anew before blocks are looked for: rules tested alone would not see that.
"""

from __future__ import annotations

import pytest
from onnx import ModelProto

import graphopt
from tests.passes.blocks import test_activations as activations
from tests.passes.blocks import test_attention as attention
from tests.passes.blocks import test_gates as gates
from tests.passes.blocks import test_norm_casts as norm_casts
from tests.passes.blocks import test_norms as norms
from tests.passes.blocks import test_softmaxes as softmaxes

GROUP_NORM = norms.GROUP_NORM.format("InstanceNormalization", ", zeros3")
CASES = [
    *[("LayerNormalization", norms.graph(text)) for text in norms.LAYER_NORMS],
    *[("GroupNormalization", norms.graph(GROUP_NORM, opset=21, shape="2,6,4,5"))],
    *[("RMSNormalization", norm_casts.graph(f"{norm_casts.LLAMA} {quotient} h = Cast<to=HALF>(n) y = Mul(g, h)"))
      for quotient in norm_casts.QUOTIENTS],
    *[(operator, activations.graph(text)) for operator, text in activations.SPELLINGS],
    ("Swish", activations.graph("s = Sigmoid(x) y = Mul(x, s)", opset=24)),
    ("Swish", gates.graph("n = Neg(x) e = Exp(n) a = Add(one, e) y = Div(x, a)", opset=24)),
    ("Softplus", gates.graph("g = Greater(x, twenty) s = Softplus(x) y = Where(g, x, s)")),
    ("Softmax", softmaxes.graph(softmaxes.SOFTMAX)),
    ("LogSoftmax", softmaxes.graph(softmaxes.LOG_SOFTMAX)),
    ("LogSoftmax", softmaxes.graph(softmaxes.LOG_SUM_EXP)),
]  # fmt: skip


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime", "portable"])
@pytest.mark.parametrize(("operator", "before"), CASES)
def test_a_block_stays_one(operator: str, before: ModelProto, target: str) -> None:
    after = graphopt.optimize(before, target=target, verify=False).model
    assert (operator in [node.op_type for node in after.graph.node]) == (
        operator != "GroupNormalization" or target == "tensorrt"
    )


@pytest.mark.parametrize("text", [text for text, _ in attention.SPELLINGS])
@pytest.mark.parametrize("target", ["onnxruntime", "portable"])
def test_attention_stays_one(text: str, target: str) -> None:
    after = graphopt.optimize(attention.graph(text), target=target, verify=False).model
    assert "Attention" in [node.op_type for node in after.graph.node]
    assert "Softmax" not in [node.op_type for node in after.graph.node]
