"""Choosing exactly k: the one place where a threshold becomes a mask.

Rule: the k largest are kept, no more and no fewer. **Of equal scores the earliest is kept**: the earlier layer (in the
order of the mapping), then the lower flat index. The published lottery-ticket code bases zero everything at or below
the k-th smallest value, which is one weight too many, and all of a tensor whose values are equal.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from prunus.errors import SettingError, require


def largest(scores: Tensor, keep: int, among: Tensor | None = None, name: str = "scores") -> Tensor:
    """A bool tensor of the shape of ``scores`` that is True at the ``keep`` largest of the places in ``among``.

    Raises SettingError if there are fewer such places than ``keep``, or if one of their scores is not a number.
    """
    allowed = torch.ones_like(scores, dtype=torch.bool) if among is None else among.clone()
    available = int(allowed.sum())
    require(0 <= keep <= available, f"keep of {name}", keep, f"from 0 to {available}, as many as there are")
    whole = available == scores.numel()
    values = _comparable(scores.flatten() if whole else scores[allowed], name)
    if keep == available or keep == 0:
        return allowed if keep else torch.zeros_like(allowed)
    threshold = values.kthvalue(available - keep + 1).values
    chosen = values > threshold
    ties = (values == threshold).nonzero().flatten()
    chosen[ties[: keep - int(chosen.sum())]] = True
    if whole:
        return chosen.view(scores.shape)
    allowed[allowed.clone()] = chosen
    return allowed


def keep_largest(
    scores: Mapping[str, Tensor],
    keep: int | Mapping[str, int],
    among: Mapping[str, Tensor] | None = None,
    floor: int = 0,
) -> dict[str, Tensor]:
    """For each name a bool tensor: the largest of each tensor (``keep`` by name) or of all together (one number).

    Of all together, each tensor first keeps its own ``floor`` largest, or all that it has if these are fewer.
    """
    among = among or {name: torch.ones_like(s, dtype=torch.bool) for name, s in scores.items()}
    if isinstance(keep, Mapping):
        return {name: largest(s, keep[name], among[name], name) for name, s in scores.items()}
    have = {name: int(among[name].sum()) for name in scores}
    least, most = sum(min(floor, n) for n in have.values()), sum(have.values())
    require(least <= keep <= most, "keep", keep, f"from {least} (the floor of {floor} a layer) to {most}")
    chosen = _over_all(scores, keep, among)
    if all(int(chosen[name].sum()) >= min(floor, n) for name, n in have.items()):
        return chosen
    sure = {name: largest(s, min(floor, have[name]), among[name], name) for name, s in scores.items()}
    rest = _over_all(scores, keep - least, {name: among[name] & ~sure[name] for name in scores})
    return {name: sure[name] | rest[name] for name in scores}


def _over_all(scores: Mapping[str, Tensor], keep: int, among: Mapping[str, Tensor]) -> dict[str, Tensor]:
    device = next(iter(scores.values())).device
    chosen = largest(
        torch.cat([_comparable(s, name, among[name]).flatten().to(device) for name, s in scores.items()]),
        keep,
        torch.cat([among[name].flatten().to(device) for name in scores]),
    ).split([s.numel() for s in scores.values()])
    return {name: c.view(s.shape).to(s.device) for (name, s), c in zip(scores.items(), chosen, strict=True)}


def largest_in_rows(scores: Tensor, keep: int | Tensor, among: Tensor | None = None, name: str = "scores") -> Tensor:
    """The same for each row of ``scores`` (..., n) by itself; ``keep`` is a number, or one for each row (...)."""
    allowed = torch.ones_like(scores, dtype=torch.bool) if among is None else among
    keep = torch.as_tensor(keep, device=scores.device).expand(scores.shape[:-1])
    if bool((keep > allowed.sum(-1)).any()) or bool((keep < 0).any()):
        raise SettingError(f"keep of {name} asks for more than some row has, or for less than 0")
    order = _comparable(scores, name, allowed).argsort(dim=-1, descending=True, stable=True)
    first = allowed.gather(-1, order).to(torch.int8).argsort(dim=-1, descending=True, stable=True)
    order = order.gather(-1, first)  # those in ``among`` come first, each part in the order of its scores
    places = torch.arange(scores.shape[-1], device=scores.device).expand_as(order)
    return torch.empty_like(order).scatter_(-1, order, places) < keep.unsqueeze(-1)


def _comparable(scores: Tensor, name: str, where: Tensor | None = None) -> Tensor:
    """Scores as float32 or float64; what lies outside ``where`` does not matter and may be anything."""
    values = scores.detach().to(scores.dtype if scores.dtype == torch.float64 else torch.float32)
    if where is not None:
        values = values.masked_fill(~where, 0.0)
    if bool(values.isnan().any()):
        raise SettingError(
            f"some scores of {name} are not numbers (NaN): the model, its loss or the importance has diverged; "
            "look at the weights and at the batch that was scored"
        )
    return values
