"""The command line: options and messages. What the commands do is in ``prunus.commands``, imported when one runs."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from prunus import __version__
from prunus.errors import PrunusError, SettingError

app = typer.Typer(
    help="Grow, score, prune: reward-guided search for generative models.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain help and errors: rich alone takes longer to load than everything else
)

METHOD_HELP = "stream-t1, stream-t1-published, stream-t1-ttsnap, beam, best-of-n or plain."
METHODS_HELP = "Names with commas, settings after colons (stream-t1:noise=fresh:cap=0); best-of-n is always among them."
REWARD_HELP = (
    "Your own reward, package.module:Name: a prunus.Reward or a function f(frames, prompt) -> float, higher is better. "
    "It chooses the video. For stream-t1 it takes the long reward's role (the clip so far) and the packaged frame "
    "reward scores new chunks; given twice, the first is the short reward and the second the long one."
)
LATENT_FRAMES_HELP = (
    "Latent frames: 1, or a multiple of the model's chunk. An autoencoder that compresses time by 4, as Wan's does, "
    "shows 4 (frames - 1) + 1 frames: 21 become 81."
)
EULER_HELP = (
    "Denoise in so many Euler steps, which keep their noise, so that estimates foretell the end; the model's own few "
    "steps draw fresh noise in between."
)
BUDGET_HELP = "The most to spend on a video: nfe=N, flops=N or seconds=N, several with commas."
Model = Annotated[Path | None, typer.Option(help="A diffusers folder with a streaming.json.", show_default="packaged")]
Keep = Annotated[int | None, typer.Option(min=1, help="Candidates that survive a chunk (stream-t1, beam).")]
First = Annotated[
    int | None,
    typer.Option(
        min=1, help="Candidates of the first chunk (stream-t1, beam).", show_default="the model's, or keep x branch"
    ),
]
Branch = Annotated[int | None, typer.Option(min=1, help="Children of each survivor (stream-t1, beam).")]
Rewards = Annotated[list[str] | None, typer.Option("--reward", help=REWARD_HELP, show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress; the result as plain lines.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...", show_default="cpu")]
Dtype = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.", show_default="float32")]
EulerSteps = Annotated[int | None, typer.Option(min=1, help=EULER_HELP, show_default="the model's few steps")]
Frames = Annotated[int | None, typer.Option(help="1, or a multiple of the model's chunk.", show_default="21")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"prunus {__version__}")
        raise typer.Exit


@app.callback()
def prunus(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    """Grow, score, prune: reward-guided search for generative models."""


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
        given = {
            "PROMPT": prompt, "--method": method, "--frames": frames, "--keep": keep, "--branch": branch,
            "--first": first, "--n": n, "--euler-steps": euler_steps,
            "--budget": budget, "--prompts": prompts, "--seed": seed, "--device": device, "--dtype": dtype,
            "--model": model, "--reward": reward, "--out": out, "--force": force or None,
        }  # fmt: skip
        if extra := [name for name, value in given.items() if value is not None]:
            raise SettingError(f"--resume takes all settings from its folder; leave out {', '.join(extra)}")
        result = finish(resume, show)
    else:
        result = make(
            prompt,
            prompts,
            method=method or "stream-t1",
            options=_given(keep=keep, branch=branch, first=first, n=n),
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
        options=_given(keep=keep, branch=branch, first=first),
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

    given = _given(keep=keep, branch=branch, first=first, n=n)
    result = make(model, size=size, frames=frames, method=method, options=given, dtype=dtype)
    if as_json:
        print(json.dumps(result))
    else:
        print_plan(result, quiet)


@app.command()
def reproduce(
    papers: Annotated[list[str] | None, typer.Argument(help="Numbers of papers: 01 ...", show_default=False)] = None,
    everything: Annotated[bool, typer.Option("--all", help="All papers; the results are written.")] = False,
    split: Annotated[str, typer.Option(help="Prompts: report, or dev while settings are mended.")] = "report",
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    smoke: Annotated[bool, typer.Option("--smoke", help="A few dev prompts, to see in seconds that it runs.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write README.md and results.json here.", show_default="reproductions, if --all")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Try a miniature of a paper's main claim, at equal cost, and say whether it holds."""
    from prunus.commands.display import Show
    from prunus.commands.reproduce import print_results
    from prunus.commands.reproduce import reproduce as run

    results = run(papers or [], everything, split=split, seed=seed, smoke=smoke, out=out, show=Show(quiet))
    if as_json:
        print(json.dumps(results[0] if len(results) == 1 and not everything else {"papers": results}))
    else:
        print_results(results, quiet)


STRATEGY_HELP = (
    "Names with commas, settings after colons (beam:keep=2:branch=8). Several are compared at equal tokens, best-of-n "
    "always among them: plain, best-of-n, beam, dvts, lookahead, rebase, particles, halving, mcts, early-rejection, "
    "adaptive-sampling, process-advantage, process-reward-agent, ..."
)
WIDTHS_HELP = "Compare at these numbers of candidates: n, keep x branch, or a quarter of the iterations."
TEXT_REWARD_HELP = (
    "prm, orm, none, a folder for token or sequence classification, or package.module:Name: a prunus.Reward or a "
    "function f(text, prompt) -> float, higher is better."
)
STEP_HELP = "What ends a step: a text (\\n is a line's end), a number of tokens, or re: and a regular expression."
CHECK_HELP = "Who says what is right: package.module:function(text, row), instead of comparing with the answer."


@app.command()
def solve(
    prompt: Annotated[str | None, typer.Argument(help="The problem.", show_default=False)] = None,
    data: Annotated[Path | None, typer.Option(help="A file of problems, one JSON object a line.")] = None,
    field: Annotated[
        list[str] | None, typer.Option(help="Where in a row: prompt=NAME, answer=NAME.", show_default=False)
    ] = None,
    world: Annotated[str | None, typer.Option(help="Problems of a built-in world instead: arithmetic.")] = None,
    split: Annotated[str, typer.Option(help="Which of its problems: dev, train or report.")] = "dev",
    operations: Annotated[int | None, typer.Option(help="Only those with so many operations: 2 to 8.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many problems.")] = None,
    check: Annotated[str | None, typer.Option(help=CHECK_HELP)] = None,
    strategy: Annotated[str, typer.Option(help=STRATEGY_HELP)] = "beam",
    widths: Annotated[str | None, typer.Option(help=WIDTHS_HELP, show_default="2,4,8,16 for several")] = None,
    choose: Annotated[str, typer.Option(help="best (by the reward), majority or weighted (votes).")] = "best",
    keep: Annotated[int | None, typer.Option(min=1, help="Candidates that survive a step.")] = None,
    branch: Annotated[int | None, typer.Option(min=1, help="Children of each survivor.")] = None,
    first: Annotated[int | None, typer.Option(min=1, help="Candidates of the first step (beam).")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="Candidates (best-of-n, rebase, particles).")] = None,
    budget: Annotated[str | None, typer.Option(help="The most for a problem: tokens=N, nfe=N, flops=N, ...")] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same answers.")] = 0,
    model: Annotated[
        str | None,
        typer.Option(help="A folder, hub id or GGUF file; a server's name of its model.", show_default="packaged"),
    ] = None,
    server: Annotated[str | None, typer.Option(help="An OpenAI-compatible server's base, http://host:8000/v1.")] = None,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--raw", help="The prompt as a turn of a chat, or as it is.", show_default="the tokenizer's"
        ),
    ] = None,
    reward: Annotated[str | None, typer.Option(help=TEXT_REWARD_HELP, show_default="the packaged prm")] = None,
    step: Annotated[str | None, typer.Option(help=STEP_HELP, show_default="\\n")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="A text that ends an answer.", show_default=False)] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="Of tokens; 0 is greedy.")] = None,
    max_tokens: Annotated[int | None, typer.Option(min=1, help="The longest answer.")] = None,
    max_step: Annotated[int | None, typer.Option(min=1, help="The longest step, in tokens.")] = None,
    max_batch_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of one forward.")] = None,
    device: Device = None,
    dtype: Dtype = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.", show_default="a new one in runs/")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older run in --out.")] = False,
    resume: Annotated[Path | None, typer.Option(help="Finish the interrupted run in this folder.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Have a language model answer better by search; compare strategies by accuracy at equal tokens."""
    from prunus.commands.display import Show
    from prunus.commands.solve import print_solved
    from prunus.commands.solve import resume as finish
    from prunus.commands.solve import solve as run
    from prunus.commands.solve_job import SolveJob

    show = Show(quiet)
    if resume is not None:
        if (prompt, data, world, model, server) != (None,) * 5:
            raise SettingError("--resume takes all settings from its folder; leave PROMPT, --data, --model, ... out")
        result = finish(resume, show)
    else:
        writing = _given(
            step=_step(step) if step is not None else None,
            stop=[_unescaped(text) for text in stop] if stop else None,
            temperature=temperature, max_tokens=max_tokens, max_step=max_step, max_batch_tokens=max_batch_tokens,
        )  # fmt: skip
        job = SolveJob(
            prompt=prompt,
            data=None if data is None else str(data.resolve()),
            fields=_fields(field or []),
            world=world,
            split=split,
            operations=operations,
            limit=limit,
            check=check,
            strategies=[name.strip() for name in _split_variants(strategy)],
            widths=_numbers("--widths", widths) if widths else [],
            options=_given(keep=keep, branch=branch, first=first, n=n),
            choose=choose,
            budget=budget,
            seed=seed,
            model=model,
            server=server,
            chat=chat,
            writing=writing,
            reward=reward,
            device=device or "cpu",
            dtype=dtype or "float32",
        )
        result = run(job, out, force, show)
    if as_json:
        print(json.dumps(result))
    else:
        print_solved(result, quiet)
    if any(line["failed"] for line in result["strategies"]):
        raise typer.Exit(1)


def _split_variants(text: str) -> list[str]:
    """Names at the commas that stand outside brackets, so that settings may be lists."""
    return [name for name in re.split(r",(?![^\[]*\])", text) if name.strip()]


def _fields(pairs: list[str]) -> dict[str, str]:
    fields = dict(pair.partition("=")[::2] for pair in pairs)
    if wrong := [k for k, v in fields.items() if k not in ("prompt", "answer") or not v]:
        raise SettingError(f"--field {wrong[0]!r} is unknown; write prompt=NAME or answer=NAME")
    return fields


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(n) for n in text.split(",")]
    except ValueError:
        raise SettingError(f"{option} {text!r} are not numbers; write for example 2,4,8") from None


def _unescaped(text: str) -> str:
    return text.replace("\\n", "\n").replace("\\t", "\t")


def _step(text: str) -> str | int:
    return int(text) if text.isdecimal() else _unescaped(text)


def _given(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def main(arguments: list[str] | None = None) -> None:
    """Run the command line. A user's mistake is one message on stderr and exit code 2; Ctrl-C is 130."""
    try:
        app(arguments)
    except PrunusError as error:
        print(f"prunus: {error}", file=sys.stderr)
        sys.exit(getattr(error, "exit_code", 2))
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
