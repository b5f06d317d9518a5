"""The report of one search: a single HTML file that needs no network. This file gathers what the page shows.

The page itself is ``page.html`` with ``page.css`` and ``page.js``, a jinja2 template that escapes all text. What opens
on demand is one JSON element, in which the template writes ``<`` as ``\\u003c``; the script shows it as text only.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from prunus.errors import SettingError
from prunus.report.chart import Chart, chart
from prunus.report.contact_sheet import COLOURS, kind_of, render_all, value_of
from prunus.report.media import web_video, write_text
from prunus.report.memory import MemoryRow
from prunus.report.numbers import amount, number, plain
from prunus.report.thumbnails import thumbnails
from prunus.report.tree_picture import picture
from prunus.score import Score
from prunus.tree import Node, Status, Tree

Judge = Callable[[Node], Score | None]
MOST_FINISHED = 16  # rows of finished candidates


@dataclass(frozen=True)
class Clip:
    """A video of the page. ``pixels`` are 8-bit (f, h, w, 3); ``figures`` as in ``result.json``."""

    name: str
    pixels: np.ndarray
    figures: Mapping[str, Any] = field(default_factory=dict)


def write_page(path: str | Path, tree: Tree, **extras: Any) -> None:
    """Write the report of a tree; ``extras`` are those of ``page``. Raises SettingError, FileError."""
    write_text(path, page(tree, **extras))


def page(
    tree: Tree,
    *,
    clips: Sequence[Clip] = (),
    fps: int = 8,
    judge: Judge | None = None,
    memory: Sequence[MemoryRow] = (),
    decider: str | None = None,
    facts: Mapping[str, Any] | None = None,
    notice: str = "",
) -> str:
    """The report as HTML. The tree needs its generator or rendered nodes.

    ``judge`` says what the world's judge thinks of the candidate that ends at a node; ``decider`` is the reward that
    chooses (None: the last); ``facts`` are settings to list; ``notice`` stands on top, say of an unfinished run.
    """
    if len(tree.nodes) < 2:
        raise SettingError("this tree has no candidates yet; there is nothing to report")
    render_all(tree)
    path = leading_path(tree)
    verdicts = {node.id: judge(node) for node in dict.fromkeys([*path, *_ends(tree)])} if judge else {}
    small = thumbnails(tree.nodes[1:])
    roles = _roles(tree)
    counts = {kind: sum(kind_of(tree, n) == kind for n in tree.nodes[1:]) for kind in COLOURS}
    shown = picture(tree, small.size if small else None)
    return _template().render(
        prompt=tree.prompt,
        notice=notice,
        finished=tree.result is not None,
        strategy=tree.spec.get("strategy", {}).get("name", "search"),
        seed=tree.seed,
        counts={kind: count for kind, count in counts.items() if count},
        grown=sum(counts.values()),
        clips=[(c, "data:video/mp4;base64," + base64.b64encode(web_video(c.pixels, fps)).decode()) for c in clips],
        fps=fps,
        picture=shown,
        thumbnails=small,
        labels={n.id: _labels(tree, n, roles) for n in tree.nodes[1:]},
        charts=_charts(tree, path, verdicts, roles),
        decider=decider or (tree.rewards[-1] if tree.rewards else "reward"),
        judged=_judged(clips, decider or "reward"),
        ends=_end_rows(tree, verdicts, decider),
        memory=memory,
        spent=_spent(tree),
        peak=tree.spent.peak_bytes,
        facts=facts or {},
        details={"fps": fps, "nodes": {n.id: _detail(tree, n, roles, verdicts, small) for n in tree.nodes[1:]}},
    )


def leading_path(tree: Tree) -> list[Node]:
    """The chosen candidate's nodes, or while there is none those of the deepest, best candidate that is alive."""
    if tree.result is not None:
        return tree.result.units()
    alive = [n for n in tree.nodes[1:] if n.status is not Status.FAILED] or tree.nodes[1:]
    open_first = [n for n in alive if n.status in (Status.OPEN, Status.DONE)] or alive
    return max(open_first, key=lambda n: (n.depth, value_of(tree, n), -n.id)).units()


def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "amount": amount, "plain": plain}
    return environment.get_template("page.html")


def _roles(tree: Tree) -> dict[str, str]:
    """What the strategy calls each reward; a reward without a role keeps its name."""
    strategy = tree.spec.get("strategy", {})
    said = {strategy.get(role): role for role in ("final", "long", "short")}
    return {name: said.get(name, name) for name in tree.rewards}


def _labels(tree: Tree, node: Node, roles: Mapping[str, str]) -> list[tuple[str, str]]:
    """The lines under a thumbnail: at most three scores."""
    if node.status is Status.FAILED:
        return [("failed", "")]
    said = [(roles.get(name, name), number(score.value)) for name, score in node.scores.items()]
    noted = tree.notes.get(node.id, {})
    return [*said[:2], *([("mixed", number(noted["value"]))] if "value" in noted else said[2:3])]


def _detail(
    tree: Tree, node: Node, roles: Mapping[str, str], verdicts: Mapping[int, Score | None], small: Any
) -> dict[str, Any]:
    """All that is known of a candidate, as text."""
    verdict = verdicts.get(node.id)
    scores = [_score(f"{name} ({roles[name]})" if roles.get(name, name) != name else name, s) for name, s in
              node.scores.items()]  # fmt: skip
    if verdict is not None:
        scores.append(_score("judge (not seen by the search)", verdict))
    facts = {
        "branch": " ".join(map(str, node.path)),
        **{k: number(v) for k, v in tree.notes.get(node.id, {}).items()},
        "log-probability": None if node.log_probability is None else number(node.log_probability),
        **{k.replace("_", " "): v for k, v in node.how.items()},
        "seed": node.unit.get("seed") if isinstance(node.unit, dict) else None,
        "forwards": node.cost.nfe,
        "FLOPs": amount(node.cost.flops),
    }
    return {
        "title": f"Chunk {node.depth}, candidate {node.id}",
        "kind": kind_of(tree, node),
        "status": node.status.value,
        "reason": node.reason,
        "parent": node.parent.id if node.parent is not None and node.parent.parent is not None else None,
        "children": [child.id for child in node.children],
        "frames": list(small.cells.get(node.id, ())) if small else [],
        "scores": scores,
        "facts": [[k, plain(v)] for k, v in facts.items() if v not in (None, (), [])],
    }


def _score(name: str, score: Score) -> dict[str, Any]:
    return {"name": name, "value": number(score.value), "parts": [[k, number(v)] for k, v in score.parts.items()]}


def _charts(
    tree: Tree, path: Sequence[Node], verdicts: Mapping[int, Score | None], roles: Mapping[str, str]
) -> list[tuple[Chart, str]]:
    """A chart with its remark for each reward, for the strategy's own value, and for the judge."""
    rows = [[n for n in tree.nodes if n.depth == d and n.boundary] for d in range(1, len(path) + 1)]
    made = []
    for name in tree.rewards:
        parts = {part: None for n in path if name in n.scores for part in n.scores[name].parts}
        made.append((
            chart(
                name,
                [_of(n.scores.get(name)) for n in path],
                {p: [n.scores[name].parts.get(p) if name in n.scores else None for n in path] for p in list(parts)[:4]},
                [[_of(n.scores.get(name)) for n in row] for row in rows],
            ),
            f"{roles[name]} reward" if roles[name] != name else "reward",
        ))  # fmt: skip
    noted = [[tree.notes.get(n.id, {}).get("value") for n in row] for row in rows]
    made.append((chart("mixed", [tree.notes.get(n.id, {}).get("value") for n in path], None, noted), "ranks a chunk"))
    made.append((chart("judge", [_of(verdicts.get(n.id)) for n in path]), "of the video so far; not seen by search"))
    return [(drawn, remark) for drawn, remark in made if drawn is not None]


def _of(score: Score | None) -> float | None:
    return None if score is None else score.value


def _ends(tree: Tree) -> list[Node]:
    """The complete candidates, pruned ones too; the chosen one first."""
    left = tree.generator.units_left if tree.generator else None
    ends = [
        n for n in tree.nodes[1:] if n.status is Status.DONE or (n.status is Status.PRUNED and left and not left(n))
    ]
    ends.sort(key=lambda n: (n is not tree.result, -value_of(tree, n), n.path))
    return ends[:MOST_FINISHED]


def _end_rows(tree: Tree, verdicts: Mapping[int, Score | None], decider: str | None) -> list[dict[str, Any]]:
    """Reward and judge of every finished candidate; nothing if there is no judge or nothing to compare."""
    name = decider or (tree.rewards[-1] if tree.rewards else "")
    rows = [
        {"id": n.id, "kind": kind_of(tree, n), "reward": n.scores[name].value, "judge": verdict.value}
        for n in _ends(tree)
        if (verdict := verdicts.get(n.id)) is not None and name in n.scores
    ]
    return rows if len(rows) > 1 else []


def _judged(clips: Sequence[Clip], decider: str) -> list[tuple[str, list[float], bool]]:
    """Rows of the table of judge and reward, (measure, value of each video, whether it is a total); none unjudged."""
    if not clips or any(clip.figures.get("judge") is None for clip in clips):
        return []
    figures = [clip.figures for clip in clips]
    rows = [
        (f"reward: {decider}", [f["reward"] for f in figures], True),
        ("judge", [f["judge"] for f in figures], True),
    ]
    parts = [f.get("judge_parts") or {} for f in figures]
    for name in parts[0]:
        item = name.removesuffix("_0")
        only_one = item != name and item in parts[0] and f"{item}_1" not in parts[0]  # says the same as ``item``
        if not only_one and all(name in p for p in parts):
            rows.append((name.replace("_", " "), [p[name] for p in parts], False))
    return rows


def _spent(tree: Tree) -> list[dict[str, Any]]:
    """What each purpose took, with its share of the FLOPs (of the seconds where none were counted)."""
    total = tree.spent.total
    rows = []
    for purpose in ("generating", "scoring", "rendering", "rebuilding"):
        cost = getattr(tree.spent, purpose)
        share = cost.flops / total.flops if total.flops else cost.seconds / total.seconds if total.seconds else 0.0
        if purpose != "rebuilding" or cost.nfe or cost.seconds:
            rows.append({"purpose": purpose, "cost": cost, "share": min(share, 1.0)})
    return [*rows, {"purpose": "total", "cost": total, "share": None}]
