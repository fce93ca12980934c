"""A Loop's body may claim shapes that hold in its first iteration only: these are not believed."""

from __future__ import annotations

from graphopt.graph import Model, import_model
from graphopt.inference import infer_types
from tests.support.models import model
from tests.support.rewrites import find


def loop(step: str, claim: str = "float[2,3]", entering: str = "float[2,3]") -> Model:
    """A Loop whose carried tensor `v` claims to be `claim`."""
    graph = import_model(
        model(
            f"""g ({entering} x, int64 trips, bool go) => (float[A,B] y) {{
            y = Loop(trips, go, x) <body = b (int64 i, bool c, {claim} v) => (bool d, float[P,Q] w) {{
                d = Identity(c)
                {step}
            }}> }}"""
        )
    )
    infer_types(graph)
    return graph


def carried(graph: Model) -> object:
    (body,) = find(graph, "y").subgraphs()
    return body.inputs[2].shape


def test_a_claim_that_every_iteration_bears_out_is_believed() -> None:
    assert carried(loop("w = Relu(v)")) == (2, 3)


def test_a_tensor_that_grows_is_of_unknown_size_where_it_grows() -> None:
    graph = loop("w = Concat<axis=0>(v, v)")
    shape = carried(graph)
    assert isinstance(shape, tuple)
    assert not isinstance(shape[0], int)
    assert shape[1] == 3
    (body,) = find(graph, "y").subgraphs()
    assert not isinstance((body.outputs[1].shape or (None,))[0], int)


def test_a_claim_that_what_enters_does_not_bear_out_is_withdrawn() -> None:
    shape = carried(loop("w = Relu(v)", entering="float[N,3]"))
    assert isinstance(shape, tuple)
    assert not isinstance(shape[0], int)


def test_a_name_may_be_another_number_in_each_iteration() -> None:
    shape = carried(loop("w = Concat<axis=0>(v, v)", claim="float[N,3]", entering="float[N,3]"))
    assert isinstance(shape, tuple)
    assert shape[0] != "N"


def test_a_rank_that_changes_is_unknown() -> None:
    assert carried(loop("w = Squeeze(v)", entering="float[2,1]", claim="float[2,1]")) is None


def test_a_name_like_inference_s_own_is_not_believed() -> None:
    proto = model(
        """g (float[N] x, float[M] v, int64 n, bool go) => (float[P] y, float[Q] z) {
            y, z = Loop(n, go, x, v) <
                body = b (int64 i, bool c, float[unk__0] p, float[unk__0] q) => (bool d, float[R] r, float[S] s) {
                    d = Identity(c) r = Relu(p) s = Add(q, q) }> }"""
    )
    graph = import_model(proto)
    infer_types(graph)
    (body,) = find(graph, "y").subgraphs()
    first, second = (t.shape for t in body.inputs[2:])
    assert first is not None
    assert first != second or first == (None,)
