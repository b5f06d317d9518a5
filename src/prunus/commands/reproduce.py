"""``prunus reproduce``: miniatures of the papers' main claims, with a verdict on each."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prunus import __version__, pocket
from prunus.commands.display import Show, print_table
from prunus.commands.models import quiet_libraries
from prunus.commands.output import Interrupted
from prunus.errors import FileError, SettingError
from prunus.reproductions.claim import PAPERS, Claim, Evidence, Trial, claim
from prunus.reproductions.report_split import count_run

FOLDER, PAGE, DATA = Path("reproductions"), "README.md", "results.json"


def reproduce(
    numbers: Sequence[str],
    everything: bool,
    *,
    split: str,
    seed: int,
    smoke: bool,
    out: Path | None,
    show: Show,
) -> list[dict[str, Any]]:
    """Run the miniatures and return what was found, one entry a paper. With ``everything`` or ``out`` it is written.

    Pictures are always drawn: into ``out``, or the folder ``reproductions``.
    """
    if bool(numbers) == everything:
        raise SettingError("name the papers to reproduce by their numbers, or all of them with --all")
    claims = [claim(n) for n in (map(str, sorted(PAPERS)) if everything else dict.fromkeys(numbers))]
    trial = Trial("dev" if smoke else split, seed, smoke, show.say)
    folder = out or (FOLDER if everything else None)
    if folder is not None:
        _check(folder)
    quiet_libraries()
    results: list[dict[str, Any]] = []
    pictures: dict[str, Callable[[Path], None]] = {}
    for one in claims:
        show.say(f"paper {one.paper:02d}, {one.title}")
        try:
            evidence = one.measure(trial)
        except KeyboardInterrupt:
            raise Interrupted("interrupted; results are written when they are whole, so start it again") from None
        results.append(_entry(one, evidence, trial))
        pictures |= zip(results[-1]["pictures"], evidence.pictures.values(), strict=True)
    if pictures:
        _check(folder or FOLDER)
    for name, draw in pictures.items():
        draw((folder or FOLDER) / name)
        show.say(f"drawn: {(folder or FOLDER) / name}")
    if folder is not None:
        _write(folder, {PAGE: page(results), DATA: json.dumps(results, indent=2) + "\n"})
        show.say(f"written to {folder / PAGE} and {folder / DATA}")
    return results


def _entry(one: Claim, evidence: Evidence, trial: Trial) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "paper": one.paper,
        "title": one.title,
        "claim": one.says,
        "baseline": one.baseline,
        "measured": one.measured,
        "verdict": evidence.verdict,
        "findings": [{**asdict(f), "verdict": f.verdict} for f in evidence.findings],
        "prunus": __version__,
        "seed": trial.seed,
        "smoke": trial.smoke,
        "settings": dict(evidence.settings),
        "rows": list(evidence.rows),
        "columns": list(evidence.columns),
        "pictures": [f"{one.paper:02d}-{name}.png" for name in evidence.pictures],
    }
    if evidence.settings.get("split") == "report":
        model = evidence.settings.get("model")  # worlds whose policies are written down have none
        model = str(pocket.path(model).resolve()) if model else "none"
        about = {"prunus": __version__, "model": model, "seed": trial.seed}
        entry["report_run"] = count_run(about, [f"reproduce {one.paper:02d}"])
    return entry


# ---- writing ---------------------------------------------------------------------------------------------------------


def _check(folder: Path) -> None:
    """Raise FileError before hours of work if the folder cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise FileError(f"the folder {folder} cannot be written ({error.strerror}); give another --out") from None


def _write(folder: Path, files: Mapping[str, str]) -> None:
    """Write all files under temporary names, and only then rename them."""
    try:
        for name, text in files.items():
            (folder / f"{name}.tmp").write_text(text, encoding="utf-8")
        for name in files:
            os.replace(folder / f"{name}.tmp", folder / name)
    except OSError as error:
        for name in files:
            with suppress(OSError):
                (folder / f"{name}.tmp").unlink()
        raise FileError(f"the results cannot be written to {folder}: {error.strerror}") from error


# ---- showing ---------------------------------------------------------------------------------------------------------

COLUMNS = ("ours", "baseline", "ours (95 %)", "baseline (95 %)", "difference", "verdict")


def interval(value: Mapping[str, float], sign: bool = False) -> str:
    kind = "+.3f" if sign else ".3f"
    if value["low"] == value["high"]:
        return f"{value['mean']:{kind}}"
    return f"{value['mean']:{kind}} [{value['low']:{kind}}, {value['high']:{kind}}]"


def _lines(result: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    for f in result["findings"]:
        asked = f" (asked: more than {f['more_than']:g})" if f["more_than"] else ""
        figures = [interval(f["value"]), interval(f["base"]), interval(f["difference"], sign=True)]
        lines.append([f["ours"], f["baseline"], *figures, f["verdict"] + asked])
    return lines


def _about(result: Mapping[str, Any]) -> str:
    settings = {name: value for name, value in result["settings"].items() if isinstance(value, str | int | float)}
    told = ", ".join(f"{name} {value}" for name, value in settings.items())
    first = f"first seed {result['seed']}; " if "seeds" in settings else ""
    text = f"Settings: {told}; {first}prunus {result['prunus']}."
    if result["smoke"]:
        text += " A smoke run: its verdicts mean nothing."
    if run := result.get("report_run"):
        text += f" Run {run} on the report split with this version and model."
    return text


def _reasons(result: Mapping[str, Any]) -> list[str]:
    return [f"{f['ours']} against {f['baseline']}: {f['reason']}." for f in result["findings"] if f["reason"]]


def _rows(result: Mapping[str, Any]) -> list[list[str]]:
    cells = [[row.get(name, "") for name in result["columns"]] for row in result["rows"]] if result["columns"] else []
    return [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in cells]


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The results as one Markdown page."""
    lines = ["# Reproductions", "", "What miniatures of the papers' main claims showed. Written by", ""]
    lines += ["    prunus reproduce --all", "", "| paper | | verdict |", "|---|---|---|"]
    lines += [f"| {r['paper']:02d} | {r['title']} | {r['verdict']} |" for r in results]
    for r in results:
        lines += ["", f"## {r['paper']:02d} {r['title']}", "", f"**Claim**: {r['claim']}", ""]
        lines += [f"**Measured**: {r['measured']}, against {r['baseline']}.", ""]
        lines += _table(COLUMNS, _lines(r))
        if r["columns"]:
            lines += ["", *_table(r["columns"], _rows(r))]
        lines += [line for name in r["pictures"] for line in ("", f"![{Path(name).stem}]({name})")]
        reasons = [f"- {reason}" for reason in _reasons(r)]
        lines += ["", f"**Verdict**: {r['verdict']}", *([""] if reasons else []), *reasons, "", _about(r)]
    return "\n".join(lines) + "\n"


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(cells)} |".replace("| -", "| \u2212").replace("[-", "[\u2212") for cells in rows]
    return [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns), *lines]


def print_results(results: Sequence[Mapping[str, Any]], quiet: bool) -> None:
    for r in results:
        print(f"Paper {r['paper']:02d}, {r['title']}\nClaim: {r['claim']}\nMeasured: {r['measured']}")
        print(f"Baseline: {r['baseline']}")
        print_table(COLUMNS, _lines(r), plain=quiet)
        if r["columns"]:
            print_table(r["columns"], _rows(r), plain=quiet)
        for reason in _reasons(r):
            print(reason)
        print(f"Verdict: {r['verdict']}\n{_about(r)}")
