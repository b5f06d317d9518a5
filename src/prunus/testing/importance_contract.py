"""The contract of importances (``prunus.sparse.importance``) as a check that anyone can run on their own."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prunus.testing.rules import holds

if TYPE_CHECKING:
    from torch import nn

    from prunus.sparse import Task
    from prunus.sparse.importance import Importance


def check_importance(importance: Importance, model: nn.Module | None = None, task: Task | None = None) -> None:
    """Raise AssertionError unless ``importance`` keeps its contract, on a small network or on yours.

    Every weight that has a mask gets a finite score of its shape, the same when asked again and whether the model is in
    training mode or not; the model, its gradients and torch's random state are left as they were; and the scores can be
    pruned by. That larger means keep is part of the contract too, but only you can know it.
    """
    import torch

    from prunus.sparse import Examples, Masks, prune
    from prunus.sparse.allocation import Global
    from prunus.sparse.networks import drawn, residual_mlp

    who = f"importance {type(importance).__name__}"
    model = model or drawn(lambda: residual_mlp(8, 6, 2, 4), 0)
    if task is None:
        draw = torch.Generator().manual_seed(0)
        rows = [(torch.randn(n, 8, generator=draw), torch.randint(4, (n,), generator=draw)) for n in (40, 8, 8)]
        task = Examples(rows[0], rows[1], rows[2], batch_size=20)
    masks = prune(model, Masks.of(model), 0.5)
    with masks.virtual(model):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        modes, random = [module.training for module in model.modules()], torch.random.get_rng_state()
        scores = importance.scores(model, masks, task)
        holds(list(scores) == list(masks), who, "there is a score for each masked weight, in order", list(scores))
        for name, score in scores.items():
            holds(score.shape == masks[name].shape, who, f"scores have the shape of {name}", tuple(score.shape))
            kept = score[masks[name]]
            holds(bool(kept.isfinite().all()), who, f"scores of sound weights are finite ({name})")
            holds(not score.requires_grad, who, "scores are numbers, without a graph behind them", name)
        same = all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
        holds(same, who, "weights and running statistics are left as they were")
        holds(modes == [module.training for module in model.modules()], who, "training modes are left as they were")
        holds(all(p.grad is None for p in model.parameters()), who, "gradients are left as they were")
        holds(torch.equal(random, torch.random.get_rng_state()), who, "torch's own random state is left as it was")
        model.train(not model.training)
        again = importance.scores(model, masks, task)
        model.train(not model.training)
        alike = all(torch.equal(score[masks[name]], again[name][masks[name]]) for name, score in scores.items())
        holds(alike, who, "it gives the same scores again, in training mode or not")
        kept_half = prune(model, masks, 0.25, importance, Global(), task=task)
        holds(
            kept_half.within(masks) and kept_half.kept == round(0.25 * masks.total), who, "one can prune by its scores"
        )
