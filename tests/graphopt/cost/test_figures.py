"""FLOPs, bytes, kernels and memory of small graphs, counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from graphopt.cost import DEVICES, Launch, Setting, estimate, find_device, graph_cost, peak_activation, run_seconds
from graphopt.errors import PipelineError
from graphopt.graph import Model, import_model
from graphopt.inference import infer_types
from graphopt.pipeline import Options
from graphopt.targets import Target
from tests.support.models import model

ORT = Setting(target=Target.ONNXRUNTIME)
TRT = Setting(target=Target.TENSORRT)


def imported(text: str, opset: int = 17, **weights: tuple[int, ...]) -> Model:
    graph = import_model(model(text, {k: np.zeros(v, np.float32) for k, v in weights.items()}, opset=opset))
    infer_types(graph)
    return graph


def flops(text: str, **weights: tuple[int, ...]) -> float:
    return graph_cost(imported(text, **weights), ORT).flops


def test_conv_counts_two_operations_a_weight_and_position() -> None:
    text = "g (float[2,8,10,10] x) => (float[2,16,10,10] y) { y = Conv<pads=[1,1,1,1]>(x, w) }"
    assert flops(text, w=(16, 8, 3, 3)) == 2 * 2 * 16 * 100 * 8 * 9


def test_grouped_conv_reads_only_its_group() -> None:
    text = "g (float[1,8,10,10] x) => (float[1,8,10,10] y) { y = Conv<pads=[1,1,1,1], group=8>(x, w) }"
    assert flops(text, w=(8, 1, 3, 3)) == 2 * 8 * 100 * 9


def test_bias_adds_one_operation_an_output() -> None:
    text = "g (float[1,8,10,10] x) => (float[1,4,10,10] y) { y = Conv(x, w, b) }"
    assert flops(text, w=(4, 8, 1, 1), b=(4,)) == 2 * 4 * 100 * 8 + 400


def test_transposed_conv_counts_by_its_input() -> None:
    text = "g (float[1,8,10,10] x) => (float[1,4,20,20] y) { y = ConvTranspose<strides=[2,2]>(x, w) }"
    assert flops(text, w=(8, 4, 2, 2)) == 2 * 8 * 100 * 4 * 4


def test_matmul_and_gemm() -> None:
    assert flops("g (float[4,5,6] x) => (float[4,5,7] y) { y = MatMul(x, w) }", w=(6, 7)) == 2 * 4 * 5 * 6 * 7
    assert flops("g (float[6,5] x) => (float[5,7] y) { y = Gemm<transA=1>(x, w) }", w=(6, 7)) == 2 * 5 * 6 * 7


def test_batched_matmul_of_two_activations() -> None:
    text = "g (float[2,3,5,6] x, float[2,3,6,7] z) => (float[2,3,5,7] y) { y = MatMul(x, z) }"
    assert flops(text) == 2 * 6 * 5 * 6 * 7


@pytest.mark.parametrize(
    ("text", "weights", "expected"),
    [
        ("x = Attention<num_heads=2>(a, w, b)", {"w": (6, 24), "b": (24,)}, 2 * 3 * 5 * 6 * 24 + 2 * 2 * 3 * 5 * 5 * 8),
        ("x = MultiHeadAttention<num_heads=2>(q, k, k)", {}, 2 * 2 * 3 * 5 * 7 * 8),
    ],
)
def test_fused_attention(text: str, weights: dict[str, tuple[int, ...]], expected: int) -> None:
    inputs = "float[3,5,6] a, float[3,5,8] q, float[3,7,8] k"
    arrays = {k: np.zeros(v, np.float32) for k, v in weights.items()}
    call = text.replace("= ", "= com.microsoft.")
    proto = model(f"g ({inputs}) => (float[3,5,8] x) {{ {call} }}", arrays, domains=', "com.microsoft" : 1')
    graph = import_model(proto)
    infer_types(graph)
    result = graph.graph.outputs[0]
    result.dtype, result.shape = 1, (3, 5, 8)  # as fusing notes it: ONNX infers nothing of other domains
    assert graph_cost(graph, ORT).flops == expected


def test_views_are_free() -> None:
    graph = imported("g (float[4,6] x) => (float[24] y) { a = Identity(x)\n y = Flatten<axis=0>(a) }")
    cost = graph_cost(graph, ORT)
    assert (cost.kernels, cost.flops, cost.read, cost.seconds) == (0, 0, 0, 0)


def test_symbolic_batch_counts_as_the_given_one() -> None:
    graph = imported("g (float[N,6] x) => (float[N,7] y) { y = MatMul(x, w) }", w=(6, 7))
    assert graph_cost(graph, ORT).flops == 2 * 6 * 7
    assert graph_cost(graph, Setting.of(Options(batch=32))).flops == 32 * 2 * 6 * 7


def test_bytes_follow_the_dtype() -> None:
    single = graph_cost(imported("g (float[8,8] x) => (float[8,8] y) { y = Relu(x) }"), ORT)
    half = graph_cost(imported("g (float16[8,8] x) => (float16[8,8] y) { y = Relu(x) }"), ORT)
    assert (single.read, single.written) == (256, 256)
    assert (half.read, half.written) == (128, 128)


def test_parameters_are_weights_not_shapes() -> None:
    text = "g (float[1,8] x) => (float[2,2] y) { a = MatMul(x, w)\n y = Reshape(a, s) }"
    proto = model(text, {"w": np.zeros((8, 4), np.float32), "s": np.array([2, 2], np.int64)})
    graph = import_model(proto)
    infer_types(graph)
    cost = graph_cost(graph, ORT)
    assert (cost.parameters, cost.parameter_bytes) == (32, 128)


def test_peak_activation_is_the_busiest_moment() -> None:
    text = """g (float[1,4,8,8] x) => (float[1,4,8,8] y)
    { a = Relu(x)  b = Sigmoid(a)  c = Tanh(a)  d = Add(b, c)  y = Neg(d) }"""
    graph = imported(text)
    assert peak_activation(graph.graph, ORT) == 3 * 4 * 64 * 4  # a, b, c, then b, c, d


def test_a_view_shares_the_bytes_of_its_input() -> None:
    text = "g (float[4,8] x) => (float[32] y) { a = Relu(x)\n b = Flatten<axis=0>(a)\n c = Neg(b)\n y = Squeeze(c) }"
    assert peak_activation(imported(text, opset=13).graph, ORT) == 2 * 32 * 4


def test_a_larger_batch_takes_longer() -> None:
    graph = imported(
        "g (float[N,64,56,56] x) => (float[N,64,56,56] y) { y = Conv<pads=[1,1,1,1]>(x, w) }", w=(64, 64, 3, 3)
    )
    seconds = [graph_cost(graph, Setting(batch=b)).seconds for b in (1, 8, 64)]
    assert seconds == sorted(seconds)
    assert seconds[2] > 2 * seconds[0]


@pytest.mark.parametrize(("slower", "faster"), [("cpu", "orin"), ("orin", "l4"), ("l4", "a100"), ("a100", "h200")])
def test_devices_are_in_their_known_order(slower: str, faster: str) -> None:
    text = "g (float[64,256,56,56] x) => (float[64,256,56,56] y) { y = Conv<pads=[1,1,1,1]>(x, w) }"
    graph = imported(text, w=(256, 256, 3, 3))
    settings = [Setting(find_device(d)) for d in (slower, faster)]
    times = [run_seconds(estimate(graph.graph.nodes, s), s) for s in settings]
    assert times[0] > times[1]


def test_every_device_is_found_by_its_name() -> None:
    assert set(DEVICES) == {"h200", "a100", "l4", "rtx4090", "orin", "cpu"}
    with pytest.raises(PipelineError, match="there is no device 'h300'; the known ones are: h200"):
        find_device("h300")


def test_a_captured_graph_spares_the_host() -> None:
    graph = imported("g (float[8,8] x) => (float[8,8] y) { a = Relu(x)  y = Neg(a) }")
    eager, captured = (
        graph_cost(graph, Setting(target=Target.ONNXRUNTIME, launch=launch)).seconds for launch in Launch
    )
    assert captured < eager


CONCAT = """g (float[1,8,8,8] x) => (float[1,12,8,8] y) {
    a = Conv(x, v)  b = Conv(x, w)  c = Concat<axis=1>(a, b)  y = Relu(c) }"""


def test_concat_is_free_on_tensorrt_and_a_copy_on_onnxruntime() -> None:
    graph = imported(CONCAT, v=(4, 8, 1, 1), w=(8, 8, 1, 1))
    concat = [n for n in graph.graph.nodes if n.op == "Concat"]
    assert estimate(concat, TRT).kernels == 0
    assert estimate(concat, TRT).read == 0
    assert estimate(concat, ORT).kernels == 1
    assert estimate(concat, ORT).read == 12 * 64 * 4


def test_concat_copies_on_tensorrt_what_someone_else_reads() -> None:
    text = CONCAT.replace("float[1,12,8,8] y)", "float[1,12,8,8] y, float[1,4,8,8] z)").replace("}", " z = Relu(a) }")
    graph = imported(text, v=(4, 8, 1, 1), w=(8, 8, 1, 1))
    concat = [n for n in graph.graph.nodes if n.op == "Concat"]
    assert estimate(concat, TRT).kernels == 1
    assert estimate(concat, TRT).read == 4 * 64 * 4


def test_split_copies_on_tensorrt_only_for_readers_that_need_whole_tensors() -> None:
    text = """g (float[1,8,8,8] x) => (float[1,4,8,8] y, float[1,4,8,8] z) {
    a, b = Split<axis=1>(x)  y = Conv(a, w)  z = Relu(b) }"""
    graph = imported(text, opset=13, w=(4, 4, 1, 1))
    split = [n for n in graph.graph.nodes if n.op == "Split"]
    assert estimate(split, TRT).kernels == 1
    assert estimate(split, ORT).kernels == 1


def test_relu_joins_the_conv_before_it_on_tensorrt() -> None:
    graph = imported("g (float[1,8,8,8] x) => (float[1,4,8,8] y) { a = Conv(x, w)  y = Relu(a) }", w=(4, 8, 1, 1))
    assert graph_cost(graph, ORT).kernels == 2  # fused or not, it takes as long
    assert graph_cost(graph, TRT).kernels == 1
