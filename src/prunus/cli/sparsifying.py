"""The command for networks: prune them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from prunus.cli.app import app
from prunus.cli.options import AsJson, Quiet, given
from prunus.errors import SettingError

MODEL_HELP = (
    "A transformers folder of a causal language model, a diffusers folder with a Wan transformer, or "
    "package.module:build, a function that makes a torch model."
)
DATA_HELP = (
    "What it is trained and judged on. Language models: a JSONL file (text, or prompt and completion), or three: "
    "training, validation, test. package.module:build: package.module:loaders, a function that gives a Task, or "
    "loaders or pairs of tensors for training, validation and test. Wan: nothing, for clips of its own world, or "
    "package.module:task, a function of the VideoModel that gives a Task."
)
SPARSITY_HELP = "Share of the prunable weights (or, with --structured, units) to remove; several with commas."
MACS_HELP = "With --structured: the share of the multiply-adds to keep, at most; several with commas."
METHOD_HELP = "See --list. Settings after colons: granet:update_every=25."
IMPORTANCE_HELP = (
    "What a weight or unit is worth, for one-shot: magnitude, snip, grasp, synflow, taylor, movement, lamp, wanda, "
    "random, reward (how much a reward falls without the unit), or your own, package.module:Name."
)
REWARD_HELP = "For --importance reward: package.module:function(model) -> float. Default: the validation score."
BASELINES_HELP = "Dense, random, magnitude one-shot and the pruned shape from scratch, in as many steps."
SETTING_HELP = "A setting of the model and its data, NAME=VALUE: batch_size, length, shares, ..."


@app.command()
def sparsify(
    model: Annotated[str | None, typer.Argument(help=MODEL_HELP, show_default=False)] = None,
    data: Annotated[list[str] | None, typer.Option(help=DATA_HELP, show_default=False)] = None,
    method: Annotated[str, typer.Option(help=METHOD_HELP)] = "one-shot",
    sparsity: Annotated[str | None, typer.Option(help=SPARSITY_HELP)] = None,
    macs: Annotated[str | None, typer.Option(help=MACS_HELP)] = None,
    structured: Annotated[
        str | None,
        typer.Option(help="Remove whole units, so that the model is really smaller: channels, heads, layers."),
    ] = None,
    pattern: Annotated[str | None, typer.Option(help="Keep n of each m weights along the input: 2:4.")] = None,
    importance: Annotated[str | None, typer.Option(help=IMPORTANCE_HELP, show_default="magnitude")] = None,
    reward: Annotated[str | None, typer.Option(help=REWARD_HELP)] = None,
    masks: Annotated[
        Path | None, typer.Option(help="For method given: masks of an earlier run, or of torch.nn.utils.prune.")
    ] = None,
    exclude: Annotated[
        list[str] | None, typer.Option(help="Weights to leave whole, patterns.", show_default="the output layer")
    ] = None,
    round_to: Annotated[int, typer.Option(min=1, help="Widths as multiples of this; 16 is fast.")] = 1,
    steps: Annotated[
        int | None,
        typer.Option(min=0, help="Gradient steps in all, a search's too.", show_default="0 if trained, else 1000"),
    ] = None,
    optimiser: Annotated[str, typer.Option(help="adam, adamw or sgd; the rate falls by a cosine.")] = "adam",
    lr: Annotated[
        float | None, typer.Option(help="The learning rate.", show_default="1e-3, sgd 0.1; a tenth to tune")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The first seed.")] = 0,
    seeds: Annotated[int, typer.Option(min=1, help="So many paired seeds; the table then has intervals.")] = 1,
    baselines: Annotated[bool, typer.Option(help=BASELINES_HELP)] = True,
    setting: Annotated[list[str] | None, typer.Option("--set", help=SETTING_HELP, show_default=False)] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps, ...", show_default="cpu")] = None,
    torch_prune: Annotated[
        bool, typer.Option("--torch-prune", help="Also write the state as torch.nn.utils.prune has it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only shapes and multiply-adds.")] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Only validation with one layer alone pruned, layer by layer.")
    ] = False,
    list_methods: Annotated[bool, typer.Option("--list", help="The methods: what kind each of them is.")] = False,
    out: Annotated[Path | None, typer.Option(help="The folder to write.", show_default="runs/sparsify-NNN")] = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with an interrupted run in this folder.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an older run.")] = False,
    save_every: Annotated[int, typer.Option(min=1, help="Gradient steps between two saves of a training.")] = 200,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Prune a network by a published method, beside honest baselines, and write the smaller one."""
    from prunus.commands.display import Show

    show = Show(quiet)
    if list_methods:
        from prunus.commands.sparsify_show import methods, print_methods

        print(json.dumps({"methods": methods()})) if as_json else print_methods(quiet)
        return
    from prunus.commands import sparsify as command
    from prunus.commands import sparsify_show as shown
    from prunus.commands.models import quiet_libraries
    from prunus.commands.settings import read_settings
    from prunus.commands.sparsify_job import SparsifyJob

    if (model is None) == (resume is None):
        raise SettingError("name a model to prune, or go on with a run by --resume FOLDER (and see --list, --help)")
    quiet_libraries()
    job = SparsifyJob(
        model or "",
        data or [],
        method,
        numbers("--sparsity", sparsity),
        numbers("--macs", macs),
        structured,
        pattern_of(pattern),
        importance,
        reward,
        str(masks) if masks else None,
        exclude or [],
        round_to,
        steps,
        optimiser,
        lr,
        seed,
        seeds,
        baselines,
        torch_prune,
        save_every,
        read_settings(setting or [], "--set", "NAME=VALUE") | given(device=device),
    )
    if dry_run:
        plans = command.dry_run(job, show)
        print(json.dumps({"plans": plans})) if as_json else shown.print_plans(plans, quiet)
    elif sensitivity:
        result = command.scan(job, out, show)
        print(json.dumps(result)) if as_json else shown.print_scan(result, quiet)
    else:
        result = command.sparsify(job, out=out, resume=resume, force=force, show=show)
        print(json.dumps(result)) if as_json else shown.print_result(result, quiet)


def numbers(option: str, text: str | None) -> list[float]:
    """Numbers between 0 and 1, with commas between them."""
    if text is None:
        return []
    try:
        found = [float(part) for part in text.split(",")]
    except ValueError:
        raise SettingError(f"{option} {text!r}: write numbers above 0 and below 1, with commas: 0.9,0.95") from None
    if bad := [value for value in found if not 0 < value < 1]:
        raise SettingError(f"{option} {bad[0]:g}: it must be above 0 and below 1 (a share, 0.9 for nine tenths)")
    return sorted(dict.fromkeys(found))


def pattern_of(text: str | None) -> list[int] | None:
    if text is None:
        return None
    n, _, m = text.partition(":")
    if not (n.isdigit() and m.isdigit()):
        raise SettingError(f"--pattern {text!r}: write n:m, so many kept of so many, as 2:4")
    return [int(n), int(m)]
