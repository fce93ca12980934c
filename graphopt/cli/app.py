"""The commands: arguments in, a call of the library, its result printed. No logic lives here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from graphopt.cli.parsing import parse_capabilities, parse_shapes
from graphopt.cli.screen import progress, screen
from graphopt.prover import Mode
from graphopt.targets import Target
from graphopt.version import VERSION

app = typer.Typer(
    name="graphopt",
    help="Optimizes ONNX models that go to TensorRT, proves that their outputs still match, and says what it did.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

Model = Annotated[Path, typer.Argument(help="The model, an .onnx file.", show_default=False)]
ShapeOption = Annotated[
    list[str], typer.Option("--shape", metavar="NAME=1x3x224x224", help="Fix an input's shape; repeat for more.")
]
InputsOption = Annotated[
    Path | None, typer.Option("--inputs", metavar="FILE.npz", help="Compare on these inputs instead of random ones.")
]
LibraryOption = Annotated[
    list[str],
    typer.Option(
        "--custom-ops", metavar="LIB.so", help="A library of custom operators for ONNX Runtime; it is loaded."
    ),
]
CapabilityOption = Annotated[
    list[str],
    typer.Option(
        "--compute-capability", metavar="8.9", help="Build for this GPU generation; default: the GPU present, else 8.9."
    ),
]


@app.callback(invoke_without_command=True)
def root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Optimizes ONNX models that go to TensorRT, proves that their outputs still match, and says what it did."""
    if version:
        screen().print(f"graphopt {VERSION}", highlight=False)
        raise typer.Exit


@app.command()
def optimize(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the optimized model.")],
    target: Annotated[
        Target, typer.Option(help="What will run the model; it decides which operators may be used.")
    ] = Target.TENSORRT,
    pipeline: Annotated[
        str, typer.Option(metavar="SPEC", help="Passes by name, or a preset; see `graphopt passes`.")
    ] = "default",
    force: Annotated[
        list[str], typer.Option(metavar="RULE", help="Apply this rule even where the cost model says no.")
    ] = [],
    forbid: Annotated[list[str], typer.Option(metavar="RULE", help="Never apply this rule.")] = [],
    shape: ShapeOption = [],
    opset: Annotated[
        int | None, typer.Option(metavar="N", help="Bring the model to this opset first; it cannot go down.")
    ] = None,
    device: Annotated[str, typer.Option(help="The device that the cost model decides for.")] = "h200",
    batch: Annotated[
        int | None, typer.Option(min=1, help="The batch that a dynamic batch dimension stands for.")
    ] = None,
    layout: Annotated[str, typer.Option(help="The layout that the cost model decides for: nchw, nhwc.")] = "nchw",
    launch: Annotated[
        str, typer.Option(help="How the runtime launches kernels: eager, or captured (in a CUDA graph).")
    ] = "eager",
    tune: Annotated[
        bool, typer.Option("--tune", help="Measure what trades instead of predicting it; results are remembered.")
    ] = False,
    tune_trials: Annotated[int, typer.Option(min=1, help="Models to measure at most, with --tune.")] = 24,
    tune_seconds: Annotated[float, typer.Option(min=0, help="Time to measure at most, with --tune.")] = 300.0,
    block: Annotated[
        str, typer.Option(help="How conv-bias-activation blocks are written: plain, function, fused.")
    ] = "plain",
    inputs: InputsOption = None,
    samples: Annotated[int, typer.Option(min=1, help="Random inputs to compare on.")] = 3,
    seed: Annotated[int, typer.Option(help="The seed of the random inputs.")] = 0,
    custom_ops: LibraryOption = [],
    verify: Annotated[
        Mode, typer.Option(help="Compare the whole model, or each rewrite as well, before anything is written.")
    ] = Mode.MODEL,
    no_verify: Annotated[bool, typer.Option("--no-verify", help="Check validity only: --verify none.")] = False,
    engine: Annotated[
        Path | None, typer.Option(metavar="PLAN", help="Build a TensorRT engine of the result, too.")
    ] = None,
    compute_capability: CapabilityOption = [],
    report: Annotated[Path | None, typer.Option(metavar="FILE.json", help="Write the report as JSON.")] = None,
    dump: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Write the model after each pass.")] = None,
    keep_weights: Annotated[
        bool,
        typer.Option("--keep-weights", help="Leave external weights in the input's files; only in the same folder."),
    ] = False,
) -> None:
    """Optimizes a model, proves the result, writes it, and says what changed and what did not."""
    from graphopt.cli.jobs import Job, run_job
    from graphopt.tune import Budget

    job = Job(
        model=model,
        output=output,
        settings={
            "target": target,
            "pipeline": pipeline,
            "force": force,
            "forbid": forbid,
            "shapes": parse_shapes(shape),
            "opset": opset,
            "device": device,
            "batch": batch,
            "layout": layout,
            "launch": launch,
            "tune": Budget(tune_trials, tune_seconds) if tune else None,
            "block": block,
            "verify": Mode.NONE.value if no_verify else verify.value,
        },
        inputs=inputs,
        samples=samples,
        seed=seed,
        custom_ops=tuple(custom_ops),
        engine=engine,
        capabilities=parse_capabilities(compute_capability),
        report=report,
        dump=dump,
        keep_weights=keep_weights,
    )
    with progress() as shown:
        done = run_job(job, shown)
    screen().print(done)


@app.command()
def verify(
    original: Annotated[Path, typer.Argument(help="The model that is right.", show_default=False)],
    candidate: Annotated[Path, typer.Argument(help="The model to compare with it.", show_default=False)],
    inputs: InputsOption = None,
    samples: Annotated[int, typer.Option(min=1, help="Random inputs to compare on.")] = 3,
    seed: Annotated[int, typer.Option(help="The seed of the random inputs.")] = 0,
    shape: ShapeOption = [],
    rtol: Annotated[float | None, typer.Option(help="Plain relative tolerance instead of the measured one.")] = None,
    atol: Annotated[float | None, typer.Option(help="Plain absolute tolerance instead of the measured one.")] = None,
    custom_ops: LibraryOption = [],
) -> None:
    """Compares two models: same interface, same outputs. Exits with 3 when they differ."""
    from graphopt.cli.jobs import compare_files

    with progress():
        found = compare_files(
            original,
            candidate,
            inputs=inputs,
            samples=samples,
            seed=seed,
            shapes=parse_shapes(shape),
            rtol=rtol,
            atol=atol,
            libraries=tuple(custom_ops),
        )
    screen().print(found)


@app.command()
def build(
    model: Model,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="PLAN", help="Where to write the engine.")],
    shape: ShapeOption = [],
    compute_capability: CapabilityOption = [],
) -> None:
    """Builds a TensorRT engine of a model as it is, and says what TensorRT made of it."""
    from graphopt.cli.jobs import build_file

    with progress() as shown:
        shown.status.update("building the engine")
        facts = build_file(model, output, parse_shapes(shape), parse_capabilities(compute_capability))
    screen().print(facts)


@app.command()
def inspect(model: Model, shape: ShapeOption = []) -> None:
    """Prints what a model holds: interface, operators, parameters, FLOPs, predicted time."""
    from graphopt.cli.jobs import inspect_file

    screen().print(inspect_file(model, parse_shapes(shape)))


@app.command()
def passes() -> None:
    """Lists the passes, their rules and options, and the named pipelines."""
    from graphopt.cli.listing import list_passes

    screen().print(list_passes())


@app.command()
def explain(
    model: Model,
    node: Annotated[str | None, typer.Argument(help="A node of the result, or one of the original.")] = None,
) -> None:
    """Says which original nodes each node of an optimized model was made of, and by which rules; and the reverse."""
    from graphopt.cli.questions import explain_file

    screen().print(explain_file(model, node))


RuleOption = Annotated[str, typer.Option("--rule", metavar="RULE", help="The rule; `graphopt passes` lists them.")]
PipelineOption = Annotated[str, typer.Option(metavar="SPEC", help="Passes by name, or a preset.")]
CheckOption = Annotated[
    str, typer.Option(metavar="COMMAND", help="Exits with 0 for a good model; {} stands for the model's path.")
]


@app.command()
def why(
    model: Model,
    rule: RuleOption,
    node: Annotated[str | None, typer.Option(help="Only this node.")] = None,
    pipeline: PipelineOption = "default",
    target: Annotated[Target, typer.Option(help="What will run the model.")] = Target.TENSORRT,
) -> None:
    """Says for each candidate of a rule which condition failed."""
    from graphopt.cli.questions import why_file

    screen().print(why_file(model, rule, node, pipeline, target))


@app.command()
def bisect(
    model: Model,
    check: CheckOption,
    pipeline: PipelineOption = "default",
    target: Annotated[Target, typer.Option(help="What will run the model.")] = Target.TENSORRT,
) -> None:
    """Finds the first rewrite after which a check command of yours fails."""
    from graphopt.cli.questions import bisect_file

    with progress() as shown:
        shown.status.update("bisecting")
        found = bisect_file(model, check, pipeline, target)
    screen().print(found)


@app.command()
def reduce(
    model: Model,
    check: CheckOption,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where to write the smaller model.")],
) -> None:
    """Makes a smaller model for which a check command of yours still fails."""
    from graphopt.cli.questions import reduce_file

    with progress() as shown:
        shown.status.update("reducing")
        done = reduce_file(model, output, check)
    screen().print(done)
