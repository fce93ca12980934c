"""One tool on one model, load and save included: `python -m benchmarks.tool NAME IN.onnx OUT.onnx`.

Each tool is called as its documentation says, at its defaults, its own output check off. The function imports its tool,
so that the process pays for that one alone.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


def run_graphopt(source: str, result: str) -> None:
    """The default pipeline."""
    import graphopt

    graphopt.optimize(source, verify=False).save(result)


def run_onnxsim(source: str, result: str) -> None:
    """`onnxsim.simplify`, from file to file."""
    import onnx
    import onnxsim

    model, _ = onnxsim.simplify(source)
    onnx.save(model, result)


def run_onnxslim(source: str, result: str) -> None:
    """`onnxslim.slim`, from file to file."""
    import onnxslim

    onnxslim.slim(source, result)


def run_onnxoptimizer(source: str, result: str) -> None:
    """Its default passes, up to their fixed point."""
    import onnx
    import onnxoptimizer

    onnx.save(onnxoptimizer.optimize(onnx.load(source), fixed_point=True), result)


def run_onnxscript(source: str, result: str) -> None:
    """`onnxscript.optimizer.optimize`, which runs its default rewrite rules too."""
    import onnx_ir
    from onnxscript import optimizer

    model = onnx_ir.load(source)
    optimizer.optimize(model)
    onnx_ir.save(model, result)


def run_onnxruntime(source: str, result: str) -> None:
    """A session at the basic level, whose rewrites stay within standard operators, and the model that it writes."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = result
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    ort.InferenceSession(source, options, providers=["CPUExecutionProvider"])


TOOLS: dict[str, Callable[[str, str], None]] = {
    "graphopt": run_graphopt,
    "onnxsim": run_onnxsim,
    "onnxslim": run_onnxslim,
    "onnxoptimizer": run_onnxoptimizer,
    "onnxscript": run_onnxscript,
    "onnxruntime": run_onnxruntime,
}
PEERS = tuple(name for name in TOOLS if name != "graphopt")

if __name__ == "__main__":
    TOOLS[sys.argv[1]](sys.argv[2], sys.argv[3])
