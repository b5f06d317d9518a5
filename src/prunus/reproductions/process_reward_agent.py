"""Paper 38, process reward agents: evidence looked up for each step steers a frozen policy better than the same scorer
does afterwards.

Chained look-ups of 6 levels in a table of 192 facts, of which 9 in 10 stand in a document among 151 real sentences
about the same people, found by BM25. The agent is a logistic model that is trained on traces of one policy (right with
a chance of 0.5 a step) about another table. 4 traces are kept with 16 next steps of each; the scorer that chooses
afterwards has as many sampled and scored steps, 64 whole traces. Votes need no scorer and get as many traces as cost
the same: a word is a token, and a scored step takes itself and its documents. A wrong step is a firm belief in 6 of 10
cases: votes agree on those. The rows also show scorers with noise, searches for evidence by threshold, and a weaker
policy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable
from dataclasses import asdict, dataclass, replace

from prunus.budget import Cost
from prunus.reproductions.claim import Claim, Evidence, Finding, Trial
from prunus.reproductions.comparison import Outcome, equal_cost_n, run_method, table
from prunus.roles import FunctionReward, Reward, Strategy
from prunus.search import Event
from prunus.strategies.best_of_n import BestOfN
from prunus.strategies.process_reward_agent import ProcessRewardAgent
from prunus.tree import Node, Tree

LEVELS, KNOWS, BELIEF, COVERED, K = 6, 0.5, 0.6, 0.9, 3
PRICE = Cost(1, 31, 31)
"""Of judging a step: its 6 words, 3 documents of 8 and the read-out; what came before is held in a cache."""


@dataclass(frozen=True)
class Votes(BestOfN):
    """The answer that most traces come to; of equally many the one that the earliest came to."""

    def choose(self, tree: Tree) -> Node:
        from prunus.worlds.lookups import answer

        assert tree.generator is not None
        leaves: list[Node] = sorted(tree.finished, key=lambda n: n.path)
        said: dict[Node, Hashable] = {n: answer(tree.generator.output(n)) for n in leaves}
        votes = Counter(said.values())
        return max(leaves, key=lambda n: votes[said[n]])


def measure(trial: Trial) -> Evidence:
    from prunus.rewards.document_store import DocumentStore
    from prunus.rewards.retrieval import RetrievalReward
    from prunus.search import search_many
    from prunus.worlds.lookups import LookupAgent, LookupPolicy, Table, judge

    learned, asked = Table(0), Table(1 if trial.split == "dev" else 2)
    prompts, seeds = asked.prompts(192, LEVELS), range(trial.seed, trial.seed + 1)
    lessons = learned.prompts(60, LEVELS)
    if trial.smoke:
        prompts, seeds, lessons = prompts[:2], seeds[:1], lessons[:5]

    trial.say("training the agent")
    trees = search_many(lessons, LookupPolicy(learned, KNOWS, BELIEF), FunctionReward(lambda t, p: 0.0), BestOfN(8))
    traces = [(t.prompt, t.generator.output(n)) for t in trees for n in t.finished if t.generator]
    agent = LookupAgent.fit(traces, learned, DocumentStore(learned.documents(COVERED)), K)
    store = DocumentStore(asked.documents(COVERED))
    outcomes: dict[str, list[Outcome]] = {}
    strategies: dict[str, Strategy] = {}
    looked_up: dict[str, float] = {}

    unscored = FunctionReward(lambda text, prompt: 0.0, "retrieval")

    def run(name: str, strategy: Strategy, reward: Reward, knows: float = KNOWS) -> None:
        trial.say(f"{name}: {len(prompts) * len(seeds)} questions")
        policy, searched = LookupPolicy(asked, knows, BELIEF), list[float]()

        def count(event: Event) -> None:
            if event.kind == "round":
                searched.extend(n.scores["retrieval"].parts.get("searched", 0) for n in event.nodes if n.scores)

        strategies[name] = strategy
        outcomes[name] = run_method(
            prompts, seeds, policy, [reward], strategy, "retrieval",
            lambda text, prompt: judge(text, prompt, asked), on_event=count,
        )  # fmt: skip
        looked_up[name] = sum(searched) / len(outcomes[name])

    def scorer(noise: float = 0.0, search: str | float = "always") -> RetrievalReward:
        return RetrievalReward(replace(agent, noise=noise), store, search, K, PRICE)

    online, chosen = ProcessRewardAgent(), [ProcessRewardAgent.post_hoc(64, how) for how in ("mean", "last", "min")]
    run("plain", BestOfN(1), unscored)
    run("online", online, scorer())
    for strategy in chosen:
        run(f"post hoc, {strategy.aggregate}", strategy, scorer())
    run("online without evidence", online, scorer(search="never"))
    for threshold in (0.0, 0.25, 0.5, 0.75):
        run(f"online, evidence from {threshold}", online, scorer(search=threshold))
    for noise in (1.0, 2.0, 4.0):
        run(f"online, noise {noise:g}", online, scorer(noise))
        run(f"post hoc, mean, noise {noise:g}", chosen[0], scorer(noise))
    run("online, policy 0.35", online, scorer(), knows=0.35)
    run("post hoc, mean, policy 0.35", chosen[0], scorer(), knows=0.35)
    cost = {name: sum(o.cost.flops for o in some) for name, some in outcomes.items()}
    n = equal_cost_n(cost["online"], cost["plain"])
    run("votes", Votes(n), unscored)

    baselines = {
        "online": ("post hoc, mean", "post hoc, last", "votes", "online without evidence"),
        "online, policy 0.35": ("post hoc, mean, policy 0.35",),
    }
    findings = [compare(outcomes, ours, base) for ours, several in baselines.items() for base in several]
    settings = {
        "split": trial.split, "prompts": len(prompts), "seeds": len(seeds), "n": n, "looked_up": looked_up,
        "strategies": {name: strategy.spec() for name, strategy in strategies.items()},
    }  # fmt: skip
    return Evidence(findings, settings, [asdict(row) for row in table(outcomes, "post hoc, mean")])


def compare(outcomes: dict[str, list[Outcome]], ours: str, baseline: str) -> Finding:
    """The difference in the share of right answers."""
    rows = {row.method: row for row in table(outcomes, baseline)}
    value, base, difference = rows[ours].judge, rows[baseline].judge, rows[ours].against
    assert value and base and difference
    return Finding(ours, baseline, value, base, difference)


CLAIM = Claim(
    paper=38,
    title="Process Reward Agents for Steering Knowledge-Intensive Reasoning",
    says="An agent that looks evidence up for each step and prunes a frozen policy's beam online answers more "
    "questions rightly than the same scorer afterwards, than votes, and than an agent without evidence; so it does for "
    "a policy that it was not trained on.",
    baseline="the same scorer post hoc, votes, and the beam without evidence",
    measured="share of right answers to look-ups of 6 levels; as many sampled and scored steps, for votes equal cost",
    measure=measure,
)
