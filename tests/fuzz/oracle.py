"""What must hold for every model and every way to optimize it."""

from __future__ import annotations

import random
import re
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import onnx
import onnx.version_converter
from onnx import ModelProto

from tests.fuzz.compare import is_finite
from tests.fuzz.inputs import Feeds
from tests.fuzz.reference import Reference, first_line

LACKING = "NOT_IMPLEMENTED"
UPGRADES = 0.2  # so many of the models are also brought to another opset
INACCURATE = "its error against a float64 run"  # how the proof says that a result is right, but less accurate
PROOF_SHARE = 4  # the tool's own proof costs more than all else here: one model in so many is proved by it as well


@dataclass(frozen=True)
class Setting:
    """One way to optimize. `forced` applies the rules that ask the cost model without asking it; `opset` upgrades."""

    pipeline: str
    target: str
    forced: bool = False
    block: str = "plain"
    forbid: tuple[str, ...] = ()
    opset: int | None = None

    def __str__(self) -> str:
        extra = [*(["forced"] if self.forced else []), *([self.block] if self.block != "plain" else [])]
        extra += [f"without {name}" for name in self.forbid]
        extra += [] if self.opset is None else [f"opset {self.opset}"]
        return " ".join([f"{self.pipeline}/{self.target}", *extra])


SETTINGS = (
    Setting("default", "tensorrt"),
    Setting("default", "tensorrt", forced=True),
    Setting("default", "portable"),
    Setting("default", "onnxruntime", block="fused"),
    Setting("default", "onnxruntime", forced=True),
    Setting("default", "tensorrt", block="function"),
    Setting("clean", "tensorrt"),
    Setting("clean", "portable"),
)


@dataclass(frozen=True)
class Failure:
    """One thing that did not hold. `key` is equal for failures that seem to have one cause."""

    kind: str
    setting: Setting
    detail: str
    key: str

    @property
    def needs_repetition(self) -> bool:
        """Whether one run does not show it."""
        return self.kind in ("not deterministic", "not idempotent", "not proved", "withdrawn") or " again" in self.key


@dataclass
class Outcome:
    """What came out for one model.

    `less_accurate`: rules whose result the proof took back because the runtime computes it less accurately than the
    original, by less than the oracle's bound for rounding. The tool did as it should, and nothing wrong was left.
    """

    failures: list[Failure] = field(default_factory=list)
    fired: Counter[str] = field(default_factory=Counter)
    less_accurate: Counter[str] = field(default_factory=Counter)
    compared: int = 0
    uncomparable: str = ""


@lru_cache(maxsize=1)
def _rules() -> dict[str, Any]:
    from graphopt.plugins import find_rules

    return find_rules()


@lru_cache(maxsize=1)
def _passes() -> tuple[str, ...]:
    from graphopt.plugins import find_passes

    return tuple(find_passes())


@lru_cache(maxsize=1)
def homes() -> dict[str, str]:
    """The pass of each rule."""
    from graphopt.plugins import find_passes

    return {rule.name: name for name, cls in find_passes().items() for rule in cls.rules}


def setting_around(rule: str, pipeline: str, target: str) -> Setting:
    """A setting in which the rule comes to its turn: forced, while the rules of its pass that trade are forbidden."""
    rivals = [name for name, home in homes().items() if home == homes()[rule] and name != rule]
    return Setting(pipeline, target, True, forbid=tuple(name for name in rivals if _rules()[name].trades))


def settings_for(seed: int, quick: bool = False, theme: str = "") -> list[Setting]:
    """Every fixed setting (when quick the first two and two others), and one more.

    That is a pipeline of passes in random order, or one around the rule of which the model has a pattern.
    """
    chooser = random.Random(seed)
    names = list(_passes())
    chooser.shuffle(names)
    shuffled = ", ".join(names[: chooser.randint(1, len(names))]) if names else "default"
    fixed = [*SETTINGS[:2], *chooser.sample(SETTINGS[2:], 2)] if quick else SETTINGS
    target = chooser.choice(["tensorrt", "onnxruntime", "portable"])
    if chooser.random() < UPGRADES:
        fixed = [*fixed, Setting("default", target, opset=chooser.choice([13, 17, 18, 20, 21, 23, 24]))]
    if theme in homes():
        pipeline = chooser.choice(["default", homes()[theme], f"clean-up, {homes()[theme]}"])
        return [*fixed, setting_around(theme, pipeline, target)]
    return [*fixed, Setting(shuffled, target, chooser.random() < 0.5)]


def optimize(model: ModelProto, setting: Setting, **proof: Any) -> Any:
    """graphopt.optimize as the setting says; the proof is off where the fuzzer is the proof."""
    import graphopt

    force = [name for name, rule in _rules().items() if rule.trades and name not in setting.forbid]
    return graphopt.optimize(
        model,
        target=setting.target,
        pipeline=_present(setting.pipeline),
        force=force if setting.forced else (),
        forbid=[name for name in setting.forbid if name in _rules()],
        block=setting.block,
        opset=setting.opset,
        **(proof or {"verify": False}),
    )


@lru_cache(maxsize=64)
def _present(pipeline: str) -> Any:
    """A preset without the passes that are not installed, parsed once."""
    from graphopt.api import make_pipeline
    from graphopt.plugins import PRESETS

    text = PRESETS.get(pipeline, pipeline)
    return make_pipeline(", ".join(name for name in text.split(", ") if name.split("{")[0] in _passes()))


def examine(
    model: ModelProto,
    feeds: list[Feeds],
    seed: int,
    settings: Iterable[Setting] | None = None,
    repeated: bool | None = None,
) -> Outcome:
    """Every check on one model; `repeated` runs of a setting are one of all settings, unless some are given."""
    outcome, reference = Outcome(), Reference(model, feeds)
    outcome.uncomparable = reference.refused or reference.untrue
    known: dict[bytes, str | None] = {}
    chosen = list(settings_for(seed) if settings is None else settings)
    for at, setting in enumerate(chosen):
        again = at == seed % len(chosen) if repeated is None else repeated
        proved = repeated is True or seed // len(chosen) % PROOF_SHARE == 0
        failure = _one(model, setting, reference, known, outcome, again, proved)
        if failure is not None:
            outcome.failures.append(failure)
    return outcome


def _one(
    model: ModelProto,
    setting: Setting,
    reference: Reference,
    known: dict[bytes, str | None],
    outcome: Outcome,
    repeated: bool,
    proved: bool,
) -> Failure | None:
    from graphopt import OpsetError

    before = model.SerializeToString(deterministic=True)
    try:
        result = optimize(model, setting)
        made = result.model
    except OpsetError:  # not every model can be brought to every opset, nor back to an older one
        return None
    except Exception as error:
        return Failure("crash", setting, _trace(error), f"crash {_where(error)}")
    applied = dict(result.report.applied)
    outcome.fired.update(applied)
    if result.report.withdrawn and not reference.untrue:
        rules = sorted({entry.rule for entry in result.report.withdrawn})
        if rules == ["upgrade-opset"] and not _can_upgrade(model, setting):
            return None
        return Failure("invalid", setting, f"taken back: {result.report.withdrawn}", f"invalid: {'+'.join(rules)}")
    if model.SerializeToString(deterministic=True) != before:
        model.ParseFromString(before)
        return Failure("input changed", setting, "optimize changed the model that it was given", "input changed")
    if reference.untrue:
        return None
    data = made.SerializeToString(deterministic=True)
    if (broken := _broken(model, made, setting)) is not None:
        return Failure("invalid", setting, broken, f"invalid {_blame(applied)} {_plain(broken.split(':')[0])}")
    exact = is_exact(applied, setting)
    if not reference.refused:
        if data not in known:
            known[data] = reference.check(made, exact, finite=needs_finite(applied))
            outcome.compared += 1
        different = known[data]
        if different is not None and setting.opset is not None and LACKING in different:
            return None  # no kernel of the opset that was asked for
        if different is not None:
            word = "wrong (exact rules)" if exact else "wrong"
            return Failure(word, setting, f"{different}; rules {sorted(applied)}", f"{word} {_blame(applied)}")
    if not repeated:
        return None
    failure = _repeated(model, made, data, setting)
    inputs = inputs_of_proof(reference, applied, exact)
    if failure is None and proved and (inputs or not reference.results):
        return _proved(model, setting, reference, inputs, outcome)
    return failure


def _can_upgrade(model: ModelProto, setting: Setting) -> bool:
    """Whether onnx's own converter makes a valid model of it: older opsets allow what newer ones do not."""
    try:
        onnx.checker.check_model(onnx.version_converter.convert_version(model, setting.opset or 0), full_check=True)
    except Exception:  # onnx raises several unrelated types
        return False
    return True


def is_exact(applied: Iterable[str], setting: Setting) -> bool:
    """Whether nothing was done that may change a bit of a finite number."""
    rules = [_rules()[name] for name in applied if name in _rules()]
    return setting.opset is None and all(rule.exactness.value == "exact" for rule in rules)


def inputs_of_proof(reference: Reference, applied: Iterable[str], exact: bool) -> list[Feeds]:
    """The inputs on which the oracle compared all that the proof would compare.

    Where a rule `needs_finite`, these are finite ones; where sums are computed in another order, an overflow on the way
    may make another infinity of a result that is none: there the results are finite, too.
    """
    finite = needs_finite(applied)
    return [
        given
        for given, expected in reference.results
        if (not finite or all(map(is_finite, given.values()))) and (exact or all(map(is_finite, expected)))
    ]


def needs_finite(applied: Iterable[str]) -> bool:
    """Whether one of these rules is an equation of finite numbers only."""
    return any(_rules()[name].needs_finite for name in applied if name in _rules())


def _proved(
    model: ModelProto, setting: Setting, reference: Reference, inputs: list[Feeds], outcome: Outcome
) -> Failure | None:
    """With the proof on nothing is taken back: the fuzzer found nothing wrong with this model and setting."""
    from graphopt import ExecutionError, Proving

    try:
        report = optimize(model, setting, verify=True, proving=Proving(inputs=inputs or None)).report
    except ExecutionError as error:
        if reference.refused:
            return None
        return Failure("not proved", setting, _trace(error), f"not proved {_plain(str(error))}")
    except Exception as error:
        return Failure(
            "crash", setting, f"with the proof: {_trace(error)}", f"crash again in the proof {_where(error)}"
        )
    if report.withdrawn:
        rules = sorted({entry.rule for entry in report.withdrawn})
        if reference.refused or any(INACCURATE not in entry.problem for entry in report.withdrawn):
            return Failure("withdrawn", setting, f"{report.withdrawn}", f"withdrawn {rules}")
        outcome.less_accurate.update(rules)
    if not report.verification or not report.verification.get("passed"):
        return Failure("withdrawn", setting, f"the proof did not pass: {report.verification}", "the proof did not pass")
    return None


def _repeated(model: ModelProto, made: ModelProto, data: bytes, setting: Setting) -> Failure | None:
    if optimize(model, setting).model.SerializeToString(deterministic=True) != data:
        return Failure("not deterministic", setting, "two runs gave two models", "not deterministic")
    try:
        again = optimize(made, setting)
    except Exception as error:
        return Failure("crash", setting, f"on its own result: {_trace(error)}", f"crash again {_where(error)}")
    if setting.pipeline not in ("default", "clean"):  # passes in any order need not reach an end
        return None
    if again.report.applied or again.model.SerializeToString(deterministic=True) != data:
        detail = f"a second run applied {again.report.applied or 'no rule, but the model differs'}"
        return Failure("not idempotent", setting, detail, f"not idempotent {sorted(again.report.applied)}")
    return None


def _checked(model: ModelProto) -> str | None:
    """What the checker says against a model, its types included."""
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:
        return first_line(error)
    return None


def _broken(model: ModelProto, made: ModelProto, setting: Setting) -> str | None:
    """A structural fault of the result; None when there is none."""
    problem = _checked(made)
    if problem is not None and _checked(model) is None:  # a graph of a test may be rejected itself: runtimes differ
        return f"the checker says: {problem}"
    for what, old, new in [
        ("inputs", _inputs(model), _inputs(made)),
        ("outputs", list(model.graph.output), list(made.graph.output)),
    ]:
        before, after = ([(i.name, i.type.tensor_type.elem_type) for i in ends] for ends in (old, new))
        if before != after:
            return f"other {what}: {before} became {after}"
        if (bad := _other_shape(old, new)) is not None:
            return f"other {what}: {bad}"
    if setting.target != "onnxruntime" and any("com.microsoft" in node.domain for node in made.graph.node):
        return "a com.microsoft operator for a target that has none"
    if (
        setting.target == "portable"
        and setting.opset is None
        and made.opset_import[0].version != model.opset_import[0].version
    ):
        return "portable changed the opset"
    return None


def _inputs(model: ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs that belong to the interface; before IR version 4 every weight was listed as one."""
    weights = {t.name for t in model.graph.initializer} if model.ir_version < 4 else set()
    return [info for info in model.graph.input if info.name not in weights]


def _other_shape(old: Iterable[onnx.ValueInfoProto], new: Iterable[onnx.ValueInfoProto]) -> str | None:
    """Known numbers must stay; an unknown dimension may become known."""
    for one, other in zip(old, new, strict=True):
        before, after = one.type.tensor_type.shape.dim, other.type.tensor_type.shape.dim
        if one.type.tensor_type.HasField("shape") and len(before) != len(after):
            return f"{one.name!r}: rank {len(before)} became {len(after)}"
        for a, b in zip(before, after, strict=True):
            if a.HasField("dim_value") and (not b.HasField("dim_value") or a.dim_value != b.dim_value):
                return f"{one.name!r}: a dimension {a.dim_value} became {b.dim_value or b.dim_param!r}"
    return None


def _blame(applied: dict[str, int]) -> str:
    return "+".join(sorted(applied)) or "no rule"


def _plain(text: str) -> str:
    """A message without names and numbers, so that equal faults have equal keys."""
    return re.sub(r"'[^']*'|\"[^\"]*\"|\d+", "_", text)[:120]


def _where(error: BaseException) -> str:
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "graphopt" in f.filename]
    last = frames[-1] if frames else None
    place = f"{last.filename.rsplit('/', 1)[-1]}:{last.name}" if last else "?"
    return f"{type(error).__name__} {place} {_plain(str(error))}"


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))[-3000:]


def guilty(model: ModelProto, feeds: list[Feeds], failure: Failure, applied: Iterable[str]) -> list[str]:
    """The rules without any one of which the failure does not happen."""
    found = []
    for name in sorted(applied):
        without = replace(failure.setting, forbid=(*failure.setting.forbid, name))
        kinds = {f.kind for f in examine(model, feeds, 0, [without], failure.needs_repetition).failures}
        if failure.kind not in kinds:
            found.append(name)
    return found
