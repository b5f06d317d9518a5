"""What ``prunus sparsify`` prints: the table of lines, what each layer keeps, plans, scans and the list of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prunus.commands.display import print_table
from prunus.commands.sparse_methods import CHOICES
from prunus.sparse.table import Line
from prunus.sparse.taxonomy import CRITERIA, LEARN, MethodCard

LINES = ("", "score", "95 %", "density", "MACs", "of dense", "parameters", "steps", "seconds")
MANY = 40
"""So many layers are shown; all are in result.json."""


def print_result(result: Mapping[str, Any], quiet: bool) -> None:
    levels = result["levels"]
    for level in levels:
        if len(levels) == 1:
            print_layers(level["layers"], quiet)
        else:
            print(f"{level['level']}:")
        print_level(level, quiet)
    print(f"score: {result['score']}, on the test split; steps: all gradient steps, pre-training and search too")
    if "note" in result:
        print(result["note"])
    print(f"speed-up: {levels[-1]['written']['speed_up']}")
    if "plot" in result:
        print(f"score against sparsity: {result['plot']}")


def print_level(level: Mapping[str, Any], quiet: bool) -> None:
    lines = {name: Line(**line) for name, line in level["lines"].items()}
    dense = level["dense_macs"]
    rows = []
    for name, line in lines.items():
        score = line.score
        ends = f"[{score.low:.4g}, {score.high:.4g}]" if len(line.test) > 1 else "one seed"
        cost = (f"{line.macs:.3g}", f"{line.macs / dense:.3f}")
        shown = name + (" (cut short)" if line.capped else "")
        cells = (f"{score.mean:.4g}", ends, f"{line.density:.4g}", *cost, f"{line.parameters:.0f}", str(line.steps))
        rows.append([shown, *cells, f"{line.seconds:.1f}"])
    print_table(LINES, rows, plain=quiet)
    print(f"written: {level['folder']}")


def print_layers(layers: Sequence[Mapping[str, Any]], quiet: bool) -> None:
    rows = []
    for row in layers[:MANY]:
        shape = "x".join(map(str, row["shape"]))
        was = row.get("dense_shape")
        if was and tuple(was) != tuple(row["shape"]):
            shape = f"{'x'.join(map(str, was))} -> {shape}"
        kept, weights = row["kept"], row["weights"]
        rows.append([row["name"], shape, str(weights), str(kept), f"{kept / weights:.4g}", f"{row['macs']:.4g}"])
    print_table(("layer", "shape", "weights", "kept", "density", "MACs"), rows, plain=quiet)
    if len(layers) > MANY:
        print(f"... and {len(layers) - MANY} layers more (--json has all)")


def print_plans(plans: Sequence[Mapping[str, Any]], quiet: bool) -> None:
    for plan in plans:
        print(f"{plan['level']}, {plan['method']}: {plan['note']}")
        print_layers(plan["layers"], quiet)
        share = plan["macs"] / plan["dense_macs"]
        print(
            f"MACs of one row: {plan['dense_macs']:.4g} -> {plan['macs']:.4g} ({share:.3f}); "
            f"parameters: {plan['dense_parameters']} -> {plan['parameters']}"
        )


def print_scan(result: Mapping[str, Any], quiet: bool) -> None:
    print(f"dense: {result['dense']['score']:.4g} on validation; with one layer alone pruned to this density:")
    rows = [[name, *(f"{at['score']:.4g}" for at in found)] for name, found in result["layers"].items()]
    print_table(("layer", *(f"{density:g}" for density in result["densities"])), rows, plain=quiet)


def methods() -> list[dict[str, Any]]:
    """The taxonomy of each method (card 46), in the order of the command's table."""
    found = []
    for name, choice in CHOICES.items():
        card = choice.card if isinstance(choice.card, MethodCard) else getattr(choice.card, "taxonomy", None)
        if not isinstance(card, MethodCard):
            card = choice.card.card
        how = [CRITERIA.get(word, LEARN.get(word, word)) for word in (*sorted(card.criteria), *sorted(card.learn))]
        found.append(
            {
                "name": name,
                "paper": card.paper,
                "prunes": list(choice.scopes),
                "speed_up": "universal" if card.universal else "specific",
                "when": card.when,
                "how": [*sorted(card.criteria), *sorted(card.learn)],
                "tags": [*card.tags, *(tag for tag in how if tag not in card.tags)],
                "fused_with": sorted(card.fusion),
                "data": card.data,
                "iterative": card.iterative,
                "static": card.static,
            }
        )
    return found


def print_methods(quiet: bool) -> None:
    columns = ("method", "paper", "prunes", "speed-up", "when", "how", "data", "fused with")
    rows = [
        [
            row["name"],
            row["paper"],
            ", ".join(row["prunes"]),
            row["speed_up"],
            row["when"].replace("_", " "),
            ", ".join(row["how"]).replace("_", " "),
            row["data"],
            ", ".join(row["fused_with"]) or "-",
        ]
        for row in methods()
    ]
    print_table(columns, rows, plain=quiet)
    print(
        "speed-up: universal = smaller matrices, real on any hardware; specific = masks, none on ordinary libraries. "
        "one-shot with --structured is universal."
    )
