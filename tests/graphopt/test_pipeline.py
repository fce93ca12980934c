"""The text form of pipelines, options of passes, and the manager."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from graphopt.errors import PipelineError, PluginError
from graphopt.facts import Facts
from graphopt.graph import Node, import_model
from graphopt.inference import infer_types
from graphopt.instruments import PassRecord
from graphopt.pipeline import Context, Options, Pass, PassManager, Pipeline, parse_pipeline
from graphopt.plugins import PRESETS, collect, find_passes
from graphopt.rewrite import Rewriter
from graphopt.rule import NoMatch, Rule
from tests.support.models import model


@dataclass(frozen=True)
class Plain(Pass):
    """Does nothing."""

    name = "plain"


@dataclass(frozen=True)
class Tuned(Pass):
    """Has options of each kind."""

    name = "tuned"
    max_count: int = 3
    share: float = 0.5
    mode: str = "fast"
    deep: bool = False


KNOWN: dict[str, type[Pass]] = {"plain": Plain, "tuned": Tuned}


@pytest.mark.parametrize(
    ("text", "passes"),
    [
        ("plain", (Plain(),)),
        (" plain ,tuned", (Plain(), Tuned())),
        ("tuned{max-count=4 deep=true}", (Tuned(max_count=4, deep=True),)),
        ("tuned{share=0.25 mode=slow}, plain", (Tuned(share=0.25, mode="slow"), Plain())),
        ("both", (Plain(), Tuned())),
        ("", ()),
    ],
)
def test_text_names_passes(text: str, passes: tuple[Pass, ...]) -> None:
    pipeline = parse_pipeline(text, KNOWN, {"both": "plain, tuned"})
    assert pipeline.passes == passes
    assert parse_pipeline(str(pipeline), KNOWN, {}) == pipeline


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("plan", "did you mean 'plain'"),
        ("tuned{count=4}", "no option 'count=4'"),
        ("tuned{max-count=many}", "no int"),
        ("tuned{deep=perhaps}", "no bool"),
        ("plain plain", "does not read on"),
        ("plain{", "does not read on"),
        ("{x}", "does not read on"),
    ],
)
def test_malformed_text_is_one_sentence(text: str, says: str) -> None:
    with pytest.raises(PipelineError, match=says) as caught:
        parse_pipeline(text, KNOWN, {})
    assert "\n" not in str(caught.value)


def test_every_preset_names_passes_that_exist() -> None:
    for text in PRESETS.values():
        assert parse_pipeline(text, find_passes(), {}).passes


def test_the_manager_records_each_pass_and_tells_the_instruments() -> None:
    heard: list[str] = []

    class Ear:
        def before(self, record: PassRecord, model: object) -> None:
            heard.append(f"before {record.text}")

        def after(self, record: PassRecord, model: object) -> None:
            heard.append(f"after {record.text}")

    graph = import_model(model("g (float[1] x) => (float[1] y) { y = Relu(x) }"))
    manager = PassManager(Pipeline((Plain(), Tuned())), [Ear()])
    manager.run(Context(graph, Facts(graph), Rewriter(graph), Options()))
    assert heard == ["before plain", "after plain", "before tuned", "after tuned"]
    assert [(r.text, r.nodes_before, r.nodes_after) for r in manager.records] == [("plain", 1, 1), ("tuned", 1, 1)]


class MergeAbs(Rule[Node]):
    """Abs(Abs(x)) = Abs(x)."""

    roots = ("Abs",)

    def match(self, node: Node, facts: Facts) -> Node | NoMatch:
        return node if facts.sole_producer(node.input(0), "Abs") else NoMatch("its input is no Abs", node)

    def rewrite(self, found: Node, edit: Rewriter) -> None:
        (inner,) = found.inputs
        assert inner is not None
        assert inner.producer is not None
        (x,) = inner.producer.inputs
        assert x is not None
        edit.forward(inner, x)


class DropLateIdentity(Rule[Node]):
    """Identity(x) = x, where no more than one Abs is left: it looks beyond what a change of Abs asks again."""

    roots = ("Identity",)

    def match(self, node: Node, facts: Facts) -> Node | NoMatch:
        is_last = sum(n.op == "Abs" for n in facts.model.graph.nodes) < 2
        return node if is_last else NoMatch("there are more", node)

    def rewrite(self, found: Node, edit: Rewriter) -> None:
        (x,) = found.inputs
        assert x is not None
        edit.forward(found.result, x)


@dataclass(frozen=True)
class Both(Pass):
    """The two rules above."""

    name = "both"
    rules = (DropLateIdentity(), MergeAbs())


def test_a_pass_that_changed_something_looks_at_everything_again() -> None:
    text = "g (float[1] x) => (float[1] y) { a = Identity(x) b = Neg(a) c = Sin(b) d = Cos(c) e = Abs(d) y = Abs(e) }"
    graph = import_model(model(text))
    infer_types(graph)
    PassManager(Pipeline((Both(),))).run(Context(graph, Facts(graph), Rewriter(graph), Options()))
    assert [node.op for node in graph.graph.sorted_nodes()] == ["Neg", "Sin", "Cos", "Abs"]


class Point:
    """Stands for an importlib EntryPoint."""

    def __init__(self, name: str, loaded: object) -> None:
        self.name, self.value, self.loaded = name, f"{name}:PASSES", loaded

    def load(self) -> object:
        if isinstance(self.loaded, Exception):
            raise self.loaded
        return self.loaded


def test_plug_ins_add_passes() -> None:
    assert collect([Point("own", (Plain,)), Point("other", (Tuned,))]) == KNOWN  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("points", "says"),
    [
        ([Point("bad", ImportError("no module"))], "'bad'.*cannot be loaded"),
        ([Point("bad", (int,))], "no Pass"),
        ([Point("bad", 3)], "cannot be loaded|no tuple"),
        ([Point("a", (Plain,)), Point("b", (type("Twin", (Plain,), {}),))], "two plug-ins"),
    ],
)
def test_a_broken_plug_in_is_named(points: list[Point], says: str) -> None:
    with pytest.raises(PluginError, match=says):
        collect(points)  # type: ignore[arg-type]
