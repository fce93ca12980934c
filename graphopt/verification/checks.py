"""Whether a model is valid ONNX: onnx.checker, without copying weights it need not see."""

from __future__ import annotations

import math

import onnx

from graphopt.flaws import check_tolerantly
from graphopt.verification import source
from graphopt.verification.sessions import bits, first_line
from graphopt.verification.source import Located


def checker_problem(model: Located, *, strict: bool) -> str | None:
    """What onnx.checker says against the model, in its first line; None when it passes.

    `strict` asks for its full check, which infers all shapes too. A model with external data or over 2 GiB is
    checked without its weights, and that its external data is there and of the right size is checked here.
    """
    whole = not source.has_external(model.proto) and model.proto.ByteSize() <= source.PROTOBUF_LIMIT
    if not whole:
        problem = _external_problem(model)
        if problem is not None:
            return problem
    try:
        onnx.checker.check_model(model.proto if whole else source.skeleton(model.proto), full_check=strict)
    except Exception as error:  # checker and shape inference raise several kinds without a common base
        return first_line(error)
    return None


def tolerant_problem(model: Located) -> str | None:
    """What onnx.checker says against the model, flaws apart that runtimes take (see `graphopt.flaws`)."""
    try:
        check_tolerantly(source.skeleton(model.proto))
    except Exception as error:  # as above
        return first_line(error)
    return None


def passes_strictly(model: Located) -> bool:
    """Whether the model passes the checker's full check; where it does, so must what is made from it."""
    return checker_problem(model, strict=True) is None


def _external_problem(model: Located) -> str | None:
    for tensor in source.tensors(model.proto):
        if not source.is_external(tensor):
            continue
        if model.folder is None:
            return f"the tensor {tensor.name} refers to a file, but the folder is not known"
        entry = {item.key: item.value for item in tensor.external_data}
        path = model.folder / entry.get("location", "")
        if not path.is_file():
            return f"the file {entry.get('location', '')!r} with the tensor {tensor.name} is missing"
        needed = (math.prod(tensor.dims) * bits(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)) + 7) // 8
        if path.stat().st_size - int(entry.get("offset", "0")) < needed:
            return f"the file {entry.get('location', '')!r} is too short for the tensor {tensor.name}"
    return None
