"""Paper 38's miniature runs, and votes go to the answer that most traces come to."""

from prunus import search
from prunus.reproductions.claim import Trial
from prunus.reproductions.process_reward_agent import Votes, measure
from prunus.roles import FunctionReward
from prunus.worlds.lookups import LookupPolicy, Table, answer, judge


def test_the_miniature_runs():
    evidence = measure(Trial("dev", smoke=True))
    assert [(f.ours, f.baseline) for f in evidence.findings] == [
        ("online", "post hoc, mean"),
        ("online", "post hoc, last"),
        ("online", "votes"),
        ("online", "online without evidence"),
        ("online, policy 0.35", "post hoc, mean, policy 0.35"),
    ]
    judged = {row["method"]: row["judge"] for row in evidence.rows}
    assert judged["online"] == judged["online, evidence from 0.0"]  # a threshold of 0 is always
    looked_up = evidence.settings["looked_up"]
    by_threshold = [looked_up[f"online, evidence from {t}"] for t in (0.0, 0.25, 0.5, 0.75)]
    assert by_threshold[0] == looked_up["online"] and by_threshold == sorted(by_threshold, reverse=True)
    assert looked_up["online without evidence"] == looked_up["votes"] == 0


def test_votes_go_to_the_answer_of_most():
    table = Table(5)
    prompt = table.prompts(1, 2)[0]
    tree = search(prompt, LookupPolicy(table, knows=0.8), FunctionReward(lambda *_: 0.0, "retrieval"), Votes(9))
    said = [answer(tree.generator.output(n)) for n in tree.finished]
    assert judge(tree.best().output, prompt, table) == 1 and said.count(table.chain(prompt)[-1]) > 2
    assert said.count(answer(tree.best().output)) == max(map(said.count, said))
