"""Operators that work element by element, so that they commute with every permutation and reshape of elements."""

from __future__ import annotations

# one tensor; further inputs, where there are any, are scalars
UNARY = frozenset(
    (
        "Abs",
        "Acos",
        "Acosh",
        "Asin",
        "Asinh",
        "Atan",
        "Atanh",
        "BitwiseNot",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Cosh",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "IsInf",
        "IsNaN",
        "LeakyRelu",
        "Log",
        "Mish",
        "Neg",
        "Not",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Sin",
        "Sinh",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Swish",
        "Tan",
        "Tanh",
        "ThresholdedRelu",
    )
)
# several tensors that are broadcast with one another
BROADCASTING = frozenset(
    (
        "Add",
        "And",
        "BitShift",
        "BitwiseAnd",
        "BitwiseOr",
        "BitwiseXor",
        "Div",
        "Equal",
        "Greater",
        "GreaterOrEqual",
        "Less",
        "LessOrEqual",
        "Max",
        "Mean",
        "Min",
        "Mod",
        "Mul",
        "Or",
        "PRelu",
        "Pow",
        "Sub",
        "Sum",
        "Where",
        "Xor",
    )
)
_VARIADIC = frozenset(("Max", "Mean", "Min", "Sum"))


def is_pointwise(op: str, opset: int) -> bool:
    """Whether the operator works element by element and, with several tensors, broadcasts in numpy's way.

    Add and its like broadcast so since opset 7, Max, Mean, Min and Sum since 8; before, they had the attribute `axis`.
    """
    if op in UNARY:
        return True
    return op in BROADCASTING and opset >= (8 if op in _VARIADIC else 7)
