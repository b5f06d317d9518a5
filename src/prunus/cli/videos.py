"""Commands for videos and images: make them, and compare methods."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.app import app
from prunus.cli.options import (
    BUDGET_HELP,
    METHOD_HELP,
    METHODS_HELP,
    AsJson,
    Branch,
    Device,
    Dtype,
    EulerSteps,
    First,
    Frames,
    Keep,
    Model,
    Quiet,
    Rewards,
    given,
)
from prunus.errors import SettingError


@app.command()
def video(
    prompt: Annotated[str | None, typer.Argument(help="What the video shows.", show_default=False)] = None,
    method: Annotated[str | None, typer.Option(help=METHOD_HELP, show_default="stream-t1")] = None,
    frames: Frames = None,
    euler_steps: EulerSteps = None,
    keep: Keep = None,
    branch: Branch = None,
    first: First = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Candidates (best-of-n).")] = None,
    budget: Annotated[str | None, typer.Option(help=BUDGET_HELP)] = None,
    prompts: Annotated[Path | None, typer.Option(help="A file with a prompt a line; each gets a sub-folder.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same video.", show_default="0")] = None,
    device: Device = None,
    dtype: Dtype = None,
    model: Model = None,
    reward: Rewards = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="a new one in runs/")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older run in --out.")] = False,
    resume: Annotated[Path | None, typer.Option(help="Finish the interrupted run in this folder.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make a video by search, next to the one that the model makes without it, with the evidence."""
    from prunus.commands.display import Show
    from prunus.commands.video import print_result
    from prunus.commands.video import resume as finish
    from prunus.commands.video import video as make

    show = Show(quiet)
    if resume is not None:
        settings = {
            "PROMPT": prompt, "--method": method, "--frames": frames, "--keep": keep, "--branch": branch,
            "--first": first, "--n": n, "--euler-steps": euler_steps,
            "--budget": budget, "--prompts": prompts, "--seed": seed, "--device": device, "--dtype": dtype,
            "--model": model, "--reward": reward, "--out": out, "--force": force or None,
        }  # fmt: skip
        if extra := [name for name, value in settings.items() if value is not None]:
            raise SettingError(f"--resume takes all settings from its folder; leave out {', '.join(extra)}")
        result = finish(resume, show)
    else:
        result = make(
            prompt,
            prompts,
            method=method or "stream-t1",
            options=given(keep=keep, branch=branch, first=first, n=n),
            frames=21 if frames is None else frames,
            euler_steps=euler_steps,
            seed=seed or 0,
            model=model,
            budget=budget,
            rewards=reward or [],
            device=device or "cpu",
            dtype=dtype or "float32",
            out=out,
            force=force,
            show=show,
        )
    if as_json:
        print(json.dumps(result))
    else:
        print_result(result, quiet)
    if any("error" in v for v in result["videos"]):
        raise typer.Exit(1)


@app.command()
def image(
    prompt: Annotated[str, typer.Argument(help="What the image shows.", show_default=False)],
    method: Annotated[str, typer.Option(help="ttsnap, best-of-n or plain.")] = "ttsnap",
    n: Annotated[int | None, typer.Option("--n", min=1, help="Seeds.", show_default="32, best-of-n 10")] = None,
    budget: Annotated[str | None, typer.Option(help=BUDGET_HELP.replace("a video", "the image"))] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same image.")] = 0,
    device: Device = None,
    dtype: Dtype = None,
    model: Model = None,
    reward: Annotated[str | None, typer.Option(help="Your own reward, package.module:Name; it chooses.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="a new one in runs/")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older run in --out.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make an image by pruned search over noise seeds, next to the one that the model makes without it."""
    from prunus.commands.display import Show
    from prunus.commands.image import image as make
    from prunus.commands.image import print_image

    result = make(
        prompt,
        method=method,
        n=n,
        seed=seed,
        model=model,
        budget=budget,
        rewards=[reward] if reward else [],
        device=device or "cpu",
        dtype=dtype or "float32",
        out=out,
        force=force,
        show=Show(quiet),
    )
    if as_json:
        print(json.dumps(result))
    else:
        print_image(result, quiet)


@app.command()
def compare(
    methods: Annotated[str, typer.Option(help=METHODS_HELP)] = ("plain,best-of-n,beam,stream-t1"),
    prompts: Annotated[Path | None, typer.Option(help="A file with a prompt a line.")] = None,
    split: Annotated[str, typer.Option(help="Prompts of the model's world instead: dev or report.")] = "dev",
    sprites: Annotated[int | None, typer.Option(min=1, max=2, help="Only prompts with so many sprites.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many prompts of the split, evenly spaced.")] = 16,
    seeds: Annotated[int, typer.Option(min=1, help="Videos of each prompt.")] = 1,
    frames: Frames = None,
    euler_steps: EulerSteps = None,
    keep: Keep = None,
    branch: Branch = None,
    first: First = None,
    device: Device = None,
    dtype: Dtype = None,
    model: Model = None,
    reward: Rewards = None,
    out: Annotated[Path | None, typer.Option(help="Write all figures to this JSON file.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --out.")] = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Compare methods at equal total cost over many prompts, with intervals, by the world's judge."""
    from prunus.commands.compare import compare as run
    from prunus.commands.compare import print_comparison
    from prunus.commands.display import Show

    result = run(
        [name.strip() for name in methods.split(",") if name.strip()],
        file=prompts,
        split=split,
        sprites=sprites,
        limit=limit,
        seeds=seeds,
        frames=21 if frames is None else frames,
        euler_steps=euler_steps,
        options=given(keep=keep, branch=branch, first=first),
        model=model,
        rewards=reward or [],
        device=device or "cpu",
        dtype=dtype or "float32",
        out=out,
        force=force,
        show=Show(quiet),
    )
    if as_json:
        print(json.dumps(result))
    else:
        print_comparison(result, quiet)
