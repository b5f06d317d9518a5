"""Commands around a run: convert a checkpoint, plan what a search takes, report what it did."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.app import app
from prunus.cli.options import LATENT_FRAMES_HELP, METHOD_HELP, AsJson, Branch, First, Keep, Quiet, given


@app.command()
def convert(
    src: Annotated[Path, typer.Argument(help="A .pt or .safetensors checkpoint, or a folder with one.")],
    dst: Annotated[Path, typer.Argument(help="The model folder to write.")],
    weights: Annotated[
        str | None, typer.Option(help="Which of its models.", show_default="generator_ema, generator or model")
    ] = None,
    lora: Annotated[Path | None, typer.Option(help="A LoRA in peft's format to merge into it.")] = None,
    lora_alpha: Annotated[float | None, typer.Option(help="The LoRA's alpha.", show_default="its rank")] = None,
    family: Annotated[
        str | None, typer.Option(help="self-forcing, causvid, longlive or wan.", show_default="a guess that it tells")
    ] = None,
    base: Annotated[Path | None, typer.Option(help="Take vae, text_encoder, ... from this diffusers folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the model in DST.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make a model folder of a Wan 2.1, Self-Forcing, CausVid or LongLive checkpoint."""
    from prunus.commands.convert import convert as run
    from prunus.commands.convert import print_converted
    from prunus.commands.display import Show

    result = run(
        src,
        dst,
        weights=weights,
        lora=lora,
        lora_alpha=lora_alpha,
        family=family,
        base=base,
        force=force,
        show=Show(quiet),
    )
    if as_json:
        print(json.dumps(result))
    else:
        print_converted(result)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="A folder of prunus video; of one with many prompts, or one of them.")],
    out: Annotated[Path | None, typer.Option(help="The HTML file.", show_default="RUN/report.html")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older report.")] = False,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...", show_default="the run's")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write one HTML page of a run: the videos, the tree with its scores, the memory, the judge, the costs."""
    from prunus.commands.display import Show
    from prunus.commands.report import print_reports
    from prunus.commands.report import report as write

    result = write(run, out, force, device, Show(quiet))
    if as_json:
        print(json.dumps(result))
    else:
        print_reports(result)


@app.command()
def plan(
    model: Annotated[str, typer.Option(help="pocket, wan-1.3b, wan-14b, or a diffusers folder.")] = "pocket",
    size: Annotated[str | None, typer.Option(help="HEIGHTxWIDTH in pixels.", show_default="the model's")] = None,
    frames: Annotated[int, typer.Option(help=LATENT_FRAMES_HELP)] = 21,
    method: Annotated[str, typer.Option(help=METHOD_HELP)] = "stream-t1",
    keep: Keep = None,
    branch: Branch = None,
    first: First = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Candidates (best-of-n).")] = None,
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "bfloat16",
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Tell memory, forwards, FLOPs and fitting GPUs of a search before it is run; needs no weights and no GPU."""
    from prunus.commands.plan import plan as make
    from prunus.commands.plan import print_plan

    options = given(keep=keep, branch=branch, first=first, n=n)
    result = make(model, size=size, frames=frames, method=method, options=options, dtype=dtype)
    if as_json:
        print(json.dumps(result))
    else:
        print_plan(result, quiet)
