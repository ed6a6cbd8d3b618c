"""The command line: `nnc demo | layers | algorithms | schema | compress | export | bench | sensitivity | report`.

What nnc raises on purpose is printed as it is, without a traceback, and ends the program with 1; wrong usage ends it with 2.
"""

from __future__ import annotations

import json
import warnings
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from nnc.errors import ConfigError, MissingFramework, NncError, nearest
from nnc.files import check_writable
from nnc.progress import bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from nnc.adapter import Layer
    from nnc.demo import Demo, Result, Settings
    from nnc.mnist import Digits
    from nnc.prunability import Prunability
    from nnc_schemas import Recipe


class CleanErrors(TyperGroup):
    """Prints nnc's errors and warnings as one message each."""

    def invoke(self, ctx: Any) -> Any:
        try:
            with warnings.catch_warnings():
                warnings.showwarning = lambda message, *_: typer.echo(f"warning: {message}", err=True)
                return super().invoke(ctx)
        except NncError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(1) from None


app = typer.Typer(cls=CleanErrors, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help="Make networks small.")
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Changes = Annotated[list[str] | None, typer.Option("-o", metavar="KEY=VALUE", help="Change the recipe: config_list.0.sparsity=0.3.")]
Inexact = Annotated[bool, typer.Option("--allow-inexact", help="Count widths that a mean is taken over, as under a LayerNorm.")]
Examples = Annotated[
    list[str] | None, typer.Option("--example", metavar="SHAPE", help="Shape of an input, 2,3,224,224 or 2,16:int64; one each.")
]
Model = Annotated[str, typer.Argument(help="file.py:build, package.module:build, model.keras, or a folder of nnc.save.")]


@app.command()
def demo(
    framework: Annotated[str, typer.Option(help="torch, tensorflow, or all that are installed.")] = "all",
    epochs: Annotated[int, typer.Option(min=1, help="Epochs of training; one of fine-tuning follows.")] = 4,
    limit: Annotated[int | None, typer.Option(min=64, help="Use only so many images.")] = None,
    output: Annotated[Path, typer.Option(help="Where the small models go.")] = Path("out/demo"),
) -> None:
    """Train a small CNN on MNIST, prune half of it, shrink it, fine-tune it: one table for each framework."""
    from nnc.demo import Settings
    from nnc.mnist import load_digits
    from nnc.tables import demo_table

    demos = _demos(framework)
    console = Console()
    digits = load_digits(limit)
    console.print(f"data: {digits.source}, {len(digits.images):,} to train on, {len(digits.test_images):,} to test", highlight=False)
    for name, one in demos.items():
        result = _run_with_progress(one, digits, Settings(epochs=epochs), output / name)
        console.print(demo_table(result))
        for file in result.files:
            console.print(f"saved: {file}", highlight=False, soft_wrap=True)


@app.command()
def layers(model: Model, example: Examples = None, allow_inexact: Inexact = False, as_json: AsJson = False) -> None:
    """List a model's layers: the names and types that a config_list selects by. With --example, also what could be removed."""
    from nnc.catalog import layers as layers_of
    from nnc.locate import locate
    from nnc.tables import table

    located = locate(model)
    rows = [_layer_row(layer) for layer in layers_of(located)]
    found = _prunability(located, example, allow_inexact) if example else None
    if as_json:
        typer.echo(json.dumps({"layers": rows, "prunability": found.to_dict()} if found else rows, indent=2))
        return
    cells = [(row["name"], ", ".join(row["op_types"]), str(row["weight"]), "yes" if row["prunable"] else "no") for row in rows]
    Console().print(table(None, ("layer", "op_types", "weight (out, in, ...)", "prunable"), cells))
    if found:
        Console().print(found)


@app.command()
def algorithms(as_json: AsJson = False) -> None:
    """List the installed algorithms, built-in and third-party alike."""
    from nnc.catalog import algorithms as installed
    from nnc.tables import listing

    rows = [{"name": found.name, "plugin": found.plugin, "summary": found.summary} for found in installed()]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        Console().print(listing(("algorithm", "plug-in", "what leaves first"), [tuple(row.values()) for row in rows]))


@app.command()
def schema() -> None:
    """Print the JSON Schema of a config_list."""
    from nnc.catalog import schema as schema_of

    typer.echo(json.dumps(schema_of(), indent=2))


@app.command()
def compress(
    recipe: Annotated[Path, typer.Argument(help="A YAML or JSON file: config_list, model, example_inputs, output.")],
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Prune and shrink a model as a recipe says, save the small model, and report."""
    from nnc.compress import compress as compress_model
    from nnc.locate import locate
    from nnc.overrides import override
    from nnc.recipe import read_file, read_recipe
    from nnc.registry import registry

    given = read_recipe(override(read_file(recipe), changes or ()))
    reference, output = _required(given, "model"), _required(given, "output")
    shapes = _required(given, "example_inputs")
    model = locate(reference)
    compressed = compress_model(model, given, _random_inputs(model, shapes, "example_inputs"))
    kind = Path(output).suffix[1:]
    compressed.speedup()
    if kind in registry().formats:
        written: RenderableType = compressed.export(output)
    else:
        compressed.save(output)
        written = f"saved: {output}"
    report = compressed.report()
    if as_json:
        typer.echo(json.dumps({**report.to_dict(), "output": output}, indent=2))
    else:
        Console().print(report, written)


@app.command()
def export(
    model: Model,
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    example: Examples = None,
    format: Annotated[str | None, typer.Option(help="What kind of file; by default what PATH ends in says, else onnx.")] = None,
    opset: Annotated[int | None, typer.Option(help="ONNX's opset; the framework's usual one by default.")] = None,
    dynamic: Annotated[bool, typer.Option("--dynamic", help="Linear layers in int8, their inputs' ranges found at run time.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write the file even where it is slower than float.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a model as a file for another runtime, and say what the runtime makes of it."""
    from nnc.export import export as export_model
    from nnc.locate import locate

    located = locate(model)
    inputs = _random_inputs(located, example or ())
    result = export_model(located, path, inputs, format=format, opset=opset, dynamic=dynamic, force=force)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
    else:
        Console().print(result, highlight=False)


@app.command()
def bench(
    models: Annotated[list[str], typer.Argument(help="The original, then its variants; each as for `nnc layers`.")],
    example: Examples = None,
    data: Annotated[Path | None, typer.Option(help="An .npz file of inputs, in order, and `labels`.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed runs of each model.")] = 50,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads that each model may use.")] = None,
    as_json: AsJson = False,
) -> None:
    """Measure models side by side: latency, size, peak memory, and accuracy where there is data."""
    from nnc.bench import bench as measure
    from nnc.bench import use_threads
    from nnc.examples import Example

    if threads is not None:
        use_threads(threads)
    found = measure(models, [Example.parse(shape) for shape in example or ()], data=_arrays(data), repeats=repeats)
    if as_json:
        typer.echo(json.dumps(found.to_dict(), indent=2))
    else:
        Console().print(found, highlight=False)


@app.command()
def sensitivity(
    model: Model,
    recipe: Annotated[Path, typer.Argument(help="A YAML or JSON file with the config_list whose layers are compressed one by one.")],
    data: Annotated[Path, typer.Option(help="An .npz file of inputs, in order, and `labels`.")],
    skip: Annotated[int | None, typer.Option(min=1, help="How many of the worst layers the new recipe leaves alone; 1 by default.")] = None,
    raised: Annotated[int | None, typer.Option("--raise", min=1, help="How many of the worst it gives --bits instead.")] = None,
    bits: Annotated[int, typer.Option(min=2, max=8, help="With --raise: how many bits.")] = 8,
    output: Annotated[Path | None, typer.Option(help="Where the new recipe goes, YAML.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Where the bars go, .png or .svg.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compress each layer alone, and show how much accuracy it costs."""
    from nnc.labels import checked_labels
    from nnc.locate import locate
    from nnc.recipe import entries_of
    from nnc.sensitivity import check_picture, judge, quantising
    from nnc.sensitivity import sensitivity as measure

    # What cannot be done with the result is said before it is measured.
    if skip is not None and raised is not None:
        raise ConfigError("--skip and --raise: the worst layers are either left alone or given more bits; say one.")
    entries = entries_of(recipe)
    if raised is not None:
        quantising(entries)
    if output is not None:
        check_writable(output, "--output")
    if picture is not None:
        check_picture(picture, "--picture")
    arrays = _arrays(data) or {}
    if "labels" not in arrays or len(arrays) < 2:
        raise ConfigError(f"--data: {data} holds {', '.join(arrays) or 'nothing'}; inputs and `labels` are needed.")
    labels = checked_labels(arrays.pop("labels"), [len(array) if array.ndim else 0 for array in arrays.values()])
    found = locate(model)
    inputs = _tensors(found, list(arrays.values()))
    result = measure(found, entries, judge(inputs, labels), inputs)
    if output is not None:
        result.write(output, result.skipping(skip or 1) if raised is None else result.raising(raised, bits))
    if picture is not None:
        result.draw(picture)
    if as_json:
        typer.echo(json.dumps(result.to_dict(), indent=2))
    else:
        Console().print(result)
        for layer, reason in result.left_out.items():
            typer.echo(f"left out: {layer}: {reason}", err=True)


@app.command()
def report(
    folder: Annotated[Path, typer.Argument(help="The folder of a scheduled run, or of nnc.run.")],
    picture: Annotated[Path | None, typer.Option(help="Where the curve goes; FOLDER/curve.svg by default.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print what each round, or stage, of a run came to, and draw parameters left against metric."""
    from nnc.curve import draw, read_run

    run = read_run(folder)
    file = draw(run, folder / "curve.svg" if picture is None else picture)
    if as_json:
        typer.echo(json.dumps({**run.to_dict(), "picture": None if file is None else str(file)}, indent=2))
        return
    Console().print(run, highlight=False)
    if file is not None:
        Console().print(f"saved: {file}", highlight=False, soft_wrap=True)


def _arrays(path: Path | None) -> dict[str, Any] | None:
    """Return the arrays of an .npz file by name."""
    import numpy as np

    if path is None:
        return None
    try:
        with np.load(path) as held:
            return dict(held)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"--data: {path} is no .npz file of arrays: {error}.") from None


def _demos(framework: str) -> dict[str, Demo]:
    """Return the demo of one framework, or of all that are installed, by the framework's name."""
    from nnc.registry import registry

    known = registry().demos
    if framework != "all":
        if framework not in known:
            raise ConfigError(f"--framework: {framework!r} has no demo{nearest(framework, known)}. There are {', '.join(known)}, and all.")
        return {framework: _demo(framework)}
    demos: dict[str, Demo] = {}
    # torch has to be imported before tensorflow, in a process that uses both.
    for name in sorted(known, key=lambda name: name != "torch"):
        try:
            demos[name] = _demo(name)
        except MissingFramework as error:
            typer.echo(f"left out: {error}", err=True)
    if not demos:
        raise MissingFramework("the demo needs a framework: pip install 'nnc-toolkit[torch]' or 'nnc-toolkit[tensorflow]'.")
    return demos


def _demo(framework: str) -> Demo:
    from nnc.registry import registry

    try:
        found: Demo = registry().demos[framework]()
        return found
    except ImportError as error:
        extra = next((found.extra for found in registry().frameworks if found.name == framework), framework)
        raise MissingFramework(f"{framework} cannot be imported: {error}. Install it: pip install 'nnc-toolkit[{extra}]'.") from error


def _run_with_progress(demo: Demo, digits: Digits, settings: Settings, folder: Path) -> Result:
    from nnc.demo import run_demo

    with bar(f"{demo.framework}: train and fine-tune", settings.batches(digits)) as show:
        done = count(1)
        return run_demo(demo, digits, settings, folder, lambda: show(next(done), ""))


def _prunability(model: Any, shapes: Sequence[str], allow_inexact: bool) -> Prunability:
    """Return what could be removed, found on random inputs of shapes such as "2,3,224,224"."""
    from nnc.prunability import prunability

    return prunability(model, _random_inputs(model, shapes), allow_inexact=allow_inexact)


def _layer_row(layer: Layer) -> dict[str, Any]:
    shape = layer.parameters.get("weight", ())
    return {"name": layer.name, "op_types": list(layer.op_types), "weight": list(shape), "prunable": layer.prunable}


def _required(recipe: Recipe, key: str) -> Any:
    value = getattr(recipe, key)
    if value is None:
        raise ConfigError(f"{key}: is missing in the recipe; add it, or give -o {key}=...")
    return value


def _random_inputs(model: Any, shapes: Sequence[str | Sequence[int]], place: str = "--example") -> Any:
    """Return random inputs of these shapes and types, as the model's framework takes them."""
    from nnc.examples import Example, random_arrays

    return _tensors(model, random_arrays([Example.parse(shape, place) for shape in shapes]))


def _tensors(model: Any, arrays: Sequence[Any]) -> Any:
    """Return arrays as the model's framework takes them, or None where there are none."""
    from nnc.catalog import layers as layers_of

    ops = layers_of(model)[0].ops
    inputs = [ops.asarray(array) for array in arrays]
    return inputs[0] if len(inputs) == 1 else tuple(inputs) or None
