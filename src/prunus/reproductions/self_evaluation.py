"""Paper 52, capability-aware self-evaluation: few samples keep most of the gain of 16, as the model knows when to stop.

Arithmetic problems with 2 to 8 operations, solved by the packaged language model, which stays frozen. After a solution
its own special token is read, and a linear read-out of the logits that follow says s = P(a fresh sample is no better).
The read-out is fitted here, on 16 samples of each of some problems of the train split, whole ones and beginnings, with
exact rewards. The self-evaluation alone decides: when to stop, and which sample is the answer.

Adaptive sampling with the paper's rule is held against

- seven tenths of the way from one sample to the best of 16 by the same self-evaluation, which must be better than one
  sample for the claim to hold;
- best-of-n with at least its FLOPs, n being a whole number.

The same rule is then led by the packaged process reward in place of the self-evaluation: its score, the chance that all
steps are right, is s where the policy would be right next time. What it gains is held against seven tenths of the gain
of the best of 16 by that reward; the reward reads every step, which its cost includes.

``TAU`` is the paper's. The rows show other thresholds, the rule 1 - s^k for all that is left, and an
oracle whose s is the truth: a wrong answer's chance that a fresh one is no better is 1 - p, a right one's is 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from prunus.reproductions.claim import Claim, Evidence, Finding, Trial
from prunus.reproductions.comparison import Interval, bootstrap
from prunus.roles import WHOLE, Reward, Strategy
from prunus.score import Score
from prunus.search import search_many
from prunus.strategies import BestOfN
from prunus.strategies.adaptive_sampling import AdaptiveSampling, samples
from prunus.tree import Tree
from prunus.worlds import arithmetic

if TYPE_CHECKING:
    from prunus.generators.text import TextGenerator
    from prunus.rewards.self_evaluation import Head

MOST, SHARE, TAU, OTHERS = 16, 0.7, 0.75, (0.5, 0.65, 0.85, 0.95)
OPERATIONS = range(2, 9)
OURS = "adaptive sampling"
LED = ", process reward"

Solved = list[dict[str, float]]
"""For each problem: right, samples, tokens, flops."""


class Oracle(Reward):
    """The true s of a solution, by each problem's ``solved``, the share of right samples."""

    name, range, view = "oracle", "probability", WHOLE

    def __init__(self, solved: Mapping[str, float]) -> None:
        self.solved = solved

    def score(self, contents: Sequence[Any], prompts: Sequence[str]) -> list[Score | float]:
        return [1.0 if right(c, p) else 1 - self.solved[p] for c, p in zip(contents, prompts, strict=True)]


def right(text: Any, prompt: str) -> float:
    return arithmetic.judge(text, prompt).value if text.whole else 0.0


def fit(generator: TextGenerator, question: tuple[int, ...], prompts: Sequence[str], seed: int = 0) -> Head:
    """The read-out of s, from samples of these prompts."""
    from prunus.rewards.self_evaluation import Head
    from prunus.rewards.self_evaluation_data import Recorder, examples
    from prunus.strategies.dvts import DVTS

    recorder = Recorder(generator, question)
    # Subtrees of one branch are samples of which every beginning is recorded too.
    trees = [t for some in _groups(prompts) for t in search_many(some, generator, recorder, DVTS(MOST, 1), seeds=seed)]
    return Head.fit(*examples(trees, recorder, right, seed=seed))


def measure(trial: Trial) -> Evidence:
    from prunus import pocket
    from prunus.generators.text import TextGenerator
    from prunus.rewards import StepReward
    from prunus.rewards.self_evaluation import SelfEvaluation

    generator = TextGenerator.load(pocket.path("lm"))
    each, train, tried = (1, 1, 4) if trial.smoke else (20, 40, MOST)
    prompts = [p for o in OPERATIONS for p in arithmetic.split(trial.split, o)[:each]]
    taught = [p for o in OPERATIONS for p in arithmetic.split("train", o)[:train]]
    question = (generator.model.tokenizer.convert_tokens_to_ids("<evaluate>"),)  # which no solution holds
    trial.say(f"fitting the read-out on {len(taught)} problems of the train split")
    judge = SelfEvaluation(generator, question, head=fit(generator, question, taught, trial.seed))
    runs: dict[str, Solved] = {}

    def run(name: str, strategy: Strategy, reward: Reward = judge) -> list[Tree]:
        trial.say(f"{name}: {len(prompts)} problems")
        trees = [
            t for some in _groups(prompts) for t in search_many(some, generator, reward, strategy, seeds=trial.seed)
        ]
        runs[name] = [_solved(tree, generator) for tree in trees]
        return trees

    run("one sample", BestOfN(1))
    many = run(f"best of {MOST}", BestOfN(tried))
    run(OURS, AdaptiveSampling(tried, TAU))
    for tau in OTHERS:
        run(f"{OURS}, tau {tau:g}", AdaptiveSampling(tried, tau))
    run(f"{OURS}, all that is left", AdaptiveSampling(tried, TAU, rule="rest"))
    shares = {t.prompt: _mean([right(generator.output(n), t.prompt) for n in t.finished]) for t in many}
    run(f"{OURS}, oracle", AdaptiveSampling(tried, TAU), Oracle(shares))
    run(f"{OURS}, oracle, tau 0.95", AdaptiveSampling(tried, 0.95), Oracle(shares))
    verifier = StepReward.load(pocket.path("prm"))
    run(f"best of {MOST}{LED}", BestOfN(tried), verifier)
    run(f"{OURS}{LED}", AdaptiveSampling(tried, TAU), verifier)
    n = next((n for n in range(1, tried) if _enough(runs, n)), tried)
    run("best-of-n", BestOfN(n))
    # A gain that is not there cannot be kept: that there is one comes first.
    gain = _difference(runs, f"best of {MOST}", "one sample")
    solved = [[(n.scores[judge.name].value, right(generator.output(n), t.prompt)) for n in t.finished] for t in many]
    gain = replace(gain, reason=why(solved))
    findings = [gain, gain_kept(runs), _difference(runs, OURS, "best-of-n")]
    findings += [_difference(runs, f"best of {MOST}{LED}", "one sample"), gain_kept(runs, LED)]
    settings = {
        "split": trial.split, "model": "lm", "operations": "2 to 8", "prompts": len(prompts), "train": len(taught),
        "most": tried, "tau": TAU, "n": n, "samples": _mean([r["samples"] for r in runs[OURS]]),
    }  # fmt: skip
    rows = [{"method": name, **{k: _mean([r[k] for r in some]) for k in some[0]}} for name, some in runs.items()]
    return Evidence(findings, settings, rows, ("method", "right", "samples", "tokens"))


def told_apart(problems: Sequence[Sequence[tuple[float, float]]]) -> float:
    """Of pairs of a right and a wrong sample of one problem, the share that s orders so; ties count half.

    A mean of problems, from (s, right) of their samples; what tells problems apart, and not samples, is 0.5.
    """
    shares = []
    for some in problems:
        good, bad = ([s for s, verdict in some if verdict == kind] for kind in (1, 0))
        if good and bad:
            shares.append(_mean([(a > b) + 0.5 * (a == b) for a in good for b in bad]))
    return _mean(shares) if shares else 0.5


def why(problems: Sequence[Sequence[tuple[float, float]]]) -> str:
    """What makes the best of many samples good or bad, from (s, right) of each problem's samples."""
    both = [some for some in problems if {verdict for _, verdict in some} == {0.0, 1.0}]
    off: dict[float, list[float]] = {0.0: [], 1.0: []}
    for some in both:
        usual = _mean([s for s, verdict in some if verdict])
        for s, verdict in some:
            off[verdict].append(abs(s - usual))
    spread = "".join(f"; {name} samples lie {_mean(off[kind]):.3f} off the right ones' mean s"
                     for name, kind in (("right", 1.0), ("wrong", 0.0)) if off[kind])  # fmt: skip
    return (
        f"of a right and a wrong sample of one problem it prefers the right one in {told_apart(problems):.0%}{spread}"
    )


def gain_kept(runs: Mapping[str, Solved], led: str = "") -> Finding:
    """Ours against the point seven tenths of the way from one sample to the best of many, paired by problem."""
    names = ("one sample", f"best of {MOST}{led}", f"{OURS}{led}")
    one, best, ours = ([r["right"] for r in runs[name]] for name in names)
    asked = [a + SHARE * (b - a) for a, b in zip(one, best, strict=True)]
    gain, drawn = _mean(best) - _mean(one), _mean([r["samples"] for r in runs[names[2]]])
    kept = (
        f"it keeps {(_mean(ours) - _mean(one)) / gain:.0%} of the gain" if gain > 0 else f"{MOST} samples gain nothing"
    )
    return Finding(
        names[2],
        f"{SHARE:.0%} of the gain of {MOST} samples",
        _interval(ours),
        _interval(asked),
        bootstrap([[a - b] for a, b in zip(ours, asked, strict=True)]),
        reason=f"{kept}; it draws {drawn:.2f} samples on average",
    )


def _difference(runs: Mapping[str, Solved], ours: str, baseline: str) -> Finding:
    a, b = ([r["right"] for r in runs[name]] for name in (ours, baseline))
    return Finding(ours, baseline, _interval(a), _interval(b), bootstrap([[x - y] for x, y in zip(a, b, strict=True)]))


def _enough(runs: Mapping[str, Solved], n: int) -> bool:
    """Whether n samples with their evaluations cost at least what ours did; a sample is a 16th of the best of 16."""
    best = runs[f"best of {MOST}"]
    one = _mean([r["flops"] / r["samples"] for r in best])
    return n * one >= _mean([r["flops"] for r in runs[OURS]])


def _solved(tree: Tree, generator: TextGenerator) -> dict[str, float]:
    cost = tree.spent.total
    verdict = right(generator.output(tree.result), tree.prompt) if tree.result else 0.0
    return {"right": verdict, "samples": samples(tree), "tokens": cost.tokens, "flops": cost.flops}


def _groups(prompts: Sequence[str], size: int = 16) -> list[Sequence[str]]:
    return [prompts[at : at + size] for at in range(0, len(prompts), size)]


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _interval(values: Sequence[float]) -> Interval:
    return bootstrap([[v] for v in values])


CLAIM = Claim(
    paper=52,
    title="Adaptive Inference-Time Compute: LLMs Can Predict if They Can Do Better, Even Mid-Generation",
    says="With its own estimate of whether a fresh sample would be better, a model that draws few samples on average "
    "keeps at least 70 % of the gain of the best of 16.",
    baseline="70 % of the gain of the best of 16 by the same self-evaluation, and best-of-n of at least the same FLOPs",
    measured="right answers of the packaged language model on problems with 2 to 8 operations, and samples drawn",
    measure=measure,
)
