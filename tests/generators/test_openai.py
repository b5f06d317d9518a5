"""OpenAIText against a server on loopback that serves a real model, a tiny one, in the ways in which servers differ."""

import asyncio

import pytest
import torch
from language_server import ALPHABET, END, LanguageServer, model
from loopback import serve

from prunus import Tree, search, search_many
from prunus.errors import ServerError, SettingError
from prunus.generators.openai import OpenAIText
from prunus.generators.openai_answer import share
from prunus.generators.written import Written
from prunus.roles import CHUNK, WHOLE, View
from prunus.strategies import Beam, BestOfN
from prunus.testing import assert_same_tree, check_generator
from prunus.tree import Status

PROMPT = "7+5=?\n"
OPENAI = {
    "model",
    "prompt",
    "messages",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "n",
    "stop",
    "seed",
    "logprobs",
}


@pytest.fixture
def site():
    with serve(LanguageServer(hints=True)) as site:
        yield site


def text(site, **settings):
    return OpenAIText(site.url, "tiny", **{"max_tokens": 60, **settings})


def digits(content, prompt):
    return sum(c.isdigit() for c in content) - 0.01 * len(content)


def grow(generator, count, prompt=PROMPT, **how):
    """``count`` children of a root, and their tree."""
    tree = Tree(prompt, 0, generator)
    tree.root.state = generator.begin(prompt)
    asks = tree.number([tree.ask(tree.root, **how) for _ in range(count)])
    return tree, tree.add(asks, generator.grow(asks))


def greedy(prompt, tokens):
    """What the model writes next, and its tokens' log-probabilities, by one forward for each: slow and obvious."""
    server, text, logs = LanguageServer(), "", []
    for _ in range(tokens):
        logits = model()(torch.tensor([[ALPHABET.index(c) for c in prompt + text]])).logits[0, -1].detach()
        logits[0] += server.boost["\n"]
        logits[END] += server.boost[""]
        token = int(logits.argmax())
        if token == END:
            break
        text += ALPHABET[token]
        logs.append(float(logits.log_softmax(-1)[token]))
    return text, logs


@pytest.mark.parametrize("step", ["\n", 4, None])
def test_keeps_the_contract(site, step):
    check_generator(text(site, step=step, share=False, max_tokens=8), [PROMPT, "2*3=?\n"])


def test_a_search_ends_with_text_and_goes_on_from_a_file(site, tmp_path):
    generator, strategy = text(site, share=False, max_steps=4, stop=["zz"]), Beam(2, 2)
    tree = search(PROMPT, generator, digits, strategy, save_to=tmp_path)
    best = tree.best().output
    assert (
        isinstance(best, Written)
        and "".join(best.steps) == best
        and best.whole == (tree.result.unit["reason"] == "end")
    )
    assert_same_tree(tree, search(PROMPT, generator, digits, strategy), "again")
    half = search(PROMPT, generator, digits, strategy, save_to=tmp_path / "half")
    broken = Tree.load(tmp_path / "half", generator)
    assert_same_tree(half, broken, "saved")
    assert tree.spec["generator"]["step"] == "\n" and tree.spec["generator"]["url"] == site.url


def test_a_step_is_a_line_whatever_the_server_makes_of_stop(site):
    """Some show the stop text, some only count it, some do not know ``stop``: the same steps and log-probabilities."""
    grown = {}
    for name, how in {
        "hints": {"hints": True},
        "shows": {"shows_stop": True},
        "no stop": {"knows_stop": False},
    }.items():
        site.answer = LanguageServer(**how)
        _, nodes = grow(text(site, share=False, max_tokens=150), 12)
        grown[name] = [(n.unit["text"], n.unit["reason"], n.log_probability) for n in nodes]
        steps = [t for t, reason, _ in grown[name] if reason == "step"]
        assert len(steps) > 4 and all(t.endswith("\n") and t.strip().count("\n") == 0 for t in steps)
    for name in ("shows", "no stop"):
        pairs = [(a, b) for a, b in zip(grown["hints"], grown[name], strict=True) if a[1] == "step" and a[0][0] != "\n"]
        assert all(a[:2] == b[:2] and a[2] == pytest.approx(b[2], abs=1e-5) for a, b in pairs)
    ends = [t for t, reason, _ in grown["hints"] if reason == "end"]
    assert ends and not any("</s>" in t or t.endswith("\n") for t in ends)


@pytest.mark.parametrize("boost", [{"\n": 2.0, "": 8.0}, {"\n": 8.0, "": 2.0}])
def test_an_end_that_cannot_be_told_from_a_step_is_asked_once_more(site, boost):
    site.answer = LanguageServer(boost=boost)  # as OpenAI: neither text nor tokens say why it stopped
    generator = text(site, share=False)
    generator.begin(PROMPT)
    before = generator.usage.completion
    site.seen.clear()
    _, nodes = grow(generator, 6)
    drawn = [n for n in nodes if n.unit["text"].strip()]
    assert {n.unit["reason"] for n in drawn} == ({"end"} if boost[""] > 4 else {"step"})
    assert all(n.unit["text"].endswith("\n") == (n.unit["reason"] == "step") for n in drawn)
    checks = [body for body in site.seen if body["temperature"] == 0]
    assert checks and all(body["max_tokens"] == 1 and "stop" not in body for body in checks)
    asked = sum(n.cost.tokens for n in nodes)
    assert asked == sum(n.unit["billed"] for n in nodes) == generator.usage.completion - before
    site.answer.hints = True
    site.seen.clear()
    grow(generator, 6)
    assert not [body for body in site.seen if body["temperature"] == 0]  # told by the tokens


def test_blank_lines_belong_to_the_step_after_them(site):
    site.answer = LanguageServer(hints=True, boost={"\n": 7.0, "": 0.0})
    _, nodes = grow(text(site, share=False), 12)
    steps = [n.unit["text"] for n in nodes if n.unit["reason"] == "step"]
    assert any(s.startswith("\n\n") for s in steps) and all(s.strip() and s.lstrip().count("\n") == 1 for s in steps)


def test_a_stop_text_ends_the_candidate_and_is_no_part_of_it(site):
    for server in (LanguageServer(hints=True), LanguageServer(shows_stop=True), LanguageServer(knows_stop=False)):
        site.answer = server
        _, nodes = grow(text(site, stop=["s", "v"], share=False), 12)
        assert not any("s" in n.unit["text"] or "v" in n.unit["text"] for n in nodes)
        assert sum(n.unit["reason"] == "end" for n in nodes) > 4
    site.answer = LanguageServer(hints=True)
    tree, (node,) = grow(text(site, step=1, stop=["+X"], temperature=0.0), 1)  # over the edge of two units
    while node.status is Status.OPEN:
        asks = tree.number([tree.ask(node)])
        (node,) = tree.add(asks, tree.generator.grow(asks))
    whole = greedy(PROMPT, 30)[0]
    shown = tree.generator.render([node], WHOLE)[0]
    assert shown == (whole[: whole.index("+X") + 1] if "+X" in whole else whole)


def test_what_a_limit_cut_is_never_finished(site):
    site.answer = LanguageServer(hints=True, boost={"\n": -50.0, "": -50.0})
    generator = text(site, max_tokens=7)
    _, (node,) = grow(generator, 1)
    assert (node.status, node.unit["reason"], node.boundary, len(node.unit["tokens"])) == (
        Status.DONE,
        "length",
        True,
        7,
    )
    assert not generator.render([node], WHOLE)[0].whole
    _, (short,) = grow(text(site, max_step=3), 1)
    assert (short.status, short.unit["reason"], len(short.unit["text"])) == (Status.OPEN, "step", 3)
    _, (only,) = grow(text(site, max_step=3, max_steps=1), 1)
    assert (only.status, only.unit["reason"]) == (Status.DONE, "length")
    site.answer = lambda body: LanguageServer(boost=server.boost)({**body, "max_tokens": 5})  # its own, lower limit
    server = LanguageServer(boost={"\n": -50.0, "": -50.0})
    _, (cut,) = grow(text(site, max_step=20), 1)
    assert (cut.status, cut.unit["reason"], len(cut.unit["text"])) == (Status.DONE, "length", 5)


def test_a_step_can_be_left_and_gone_on_with(site):
    generator = text(site, temperature=0.0)
    tree, (node,) = grow(generator, 1, steps=2)
    line = greedy(PROMPT, 60)[0].split("\n")[0] + "\n"
    assert (node.unit["reason"], node.boundary, node.unit["text"]) == ("partial", False, line[:2])
    assert not generator.render([node], CHUNK)[0].whole
    assert generator.render([node], View(1, progress=True))[0][1] == 2
    asks = tree.number([tree.ask(node)])
    (rest,) = tree.add(asks, generator.grow(asks))
    assert (rest.unit["reason"], rest.unit["text"], rest.depth, rest.path) == ("step", line, 1, (0,))
    assert generator.render([rest], WHOLE)[0].steps == (line,)
    assert generator.restore([rest, node], PROMPT) == [(rest.state, rest.cost * 0), (node.state, node.cost * 0)]


def test_log_probabilities_are_the_models(site):
    generator = text(site, temperature=0.0)
    _, (node,) = grow(generator, 1)
    line, logs = greedy(PROMPT, len(node.unit["text"]))
    assert node.unit["text"] == line and node.log_probability == pytest.approx(sum(logs), abs=1e-4)
    assert node.unit["log_probabilities"].tolist() == pytest.approx(logs, abs=1e-4) and len(node.unit["tokens"]) == len(
        logs
    )
    for server in (LanguageServer(logs=False), LanguageServer(refuses=("logprobs",))):
        site.answer = server
        _, (untold,) = grow(text(site, temperature=0.0), 1)
        assert (
            untold.unit["text"] == line
            and untold.log_probability is None
            and len(untold.unit["log_probabilities"]) == 0
        )


def test_siblings_share_a_request(site):
    generator = text(site)
    generator.begin(PROMPT)
    site.seen.clear()
    before = generator.usage
    _, nodes = grow(generator, 20)
    first = [body["n"] for body in site.seen if body["prompt"] == PROMPT]
    assert sorted(first) == [4, 16]  # at most 16 to a request
    assert len({n.unit["text"] for n in nodes}) > 10
    assert sum(n.cost.tokens for n in nodes) == generator.usage.completion - before.completion
    site.seen.clear()
    grow(text(site, share=False), 5)
    assert not any("n" in body for body in site.seen if body["seed"])
    site.seen.clear()
    grow(generator, 5, temperature=0.0)
    assert not any("n" in body for body in site.seen)  # some servers refuse several greedy choices


@pytest.mark.parametrize("server", [{"most": 1}, {"refuses": ("n",)}])
def test_a_server_without_n_is_asked_for_each_with_its_own_seed(site, server):
    site.answer = LanguageServer(hints=True, **server)
    generator = text(site)
    generator.begin(PROMPT)
    site.seen.clear()
    _, nodes = grow(generator, 6)
    first = [body for body in site.seen if body["prompt"] == PROMPT]
    assert len(first) == len({body["seed"] for body in first}) == 6 and not any("n" in body for body in first)
    assert len({n.unit["text"] for n in nodes}) > 3
    _, alone = grow(text(site, share=False), 6)
    assert [n.unit["text"] for n in alone] == [n.unit["text"] for n in nodes]


def test_the_choices_that_a_server_kept_back_are_asked_for_singly(site):
    site.answer = LanguageServer(hints=True, most=2)
    generator = text(site)
    generator.begin(PROMPT)
    site.seen.clear()
    _, nodes = grow(generator, 5)
    first = [body for body in site.seen if body["prompt"] == PROMPT]
    assert [body.get("n") for body in first] == [5, None, None, None] and len({b["seed"] for b in first}) == 4
    assert all(n.status is not Status.FAILED for n in nodes)
    site.seen.clear()
    grow(generator, 5)
    assert not any("n" in body for body in site.seen)


def test_only_openais_fields_are_sent_and_what_is_asked_for(site):
    search(PROMPT, text(site, stop=["##"], max_steps=3), digits, Beam(2, 2))
    assert set().union(*site.seen) <= OPENAI
    site.seen.clear()
    grow(text(site, chat=True, step=None, system="Be brief.", template="Solve {prompt}!", extra={"min_p": 0.1}), 2)
    assert set().union(*site.seen) <= OPENAI | {"min_p"} and all(body["min_p"] == 0.1 for body in site.seen)
    said = site.seen[-1]["messages"]
    assert said == [{"role": "system", "content": "Be brief."}, {"role": "user", "content": f"Solve {PROMPT}!"}]


def test_usage_is_what_the_server_billed(site):
    server, billed = LanguageServer(), []

    def answer(body):
        billed.append(server(body))
        return billed[-1]

    site.answer = answer
    generator = text(site)
    tree = search(PROMPT, generator, digits, BestOfN(4))
    usages = [a["usage"] for a in billed]
    used = generator.usage
    assert (used.requests, used.unreported) == (len(billed), 0)
    assert used.prompt == sum(u["prompt_tokens"] for u in usages)
    assert used.cached == sum(u["prompt_tokens_details"]["cached_tokens"] for u in usages) > 0
    assert used.completion == sum(u["completion_tokens"] for u in usages)
    assert (
        tree.spent.generating.tokens == used.completion - usages[0]["completion_tokens"]
    )  # the probe is not the search's
    assert tree.spent.generating.nfe == len(tree.nodes) - 1


def test_a_server_without_usage_is_counted_by_its_tokens_or_guessed(site):
    site.answer = LanguageServer(counts=False)
    generator = text(site, temperature=0.0)
    _, (node,) = grow(generator, 1)
    assert generator.usage.unreported == generator.usage.requests and node.cost.tokens >= len(node.unit["tokens"]) > 0
    site.answer = LanguageServer(counts=False, logs=False)
    _, (guessed,) = grow(text(site, temperature=0.0), 1)
    assert guessed.unit["text"] == node.unit["text"] and 0 < guessed.cost.tokens < node.cost.tokens


def test_shares_are_whole_and_add_up():
    assert share(10, [1, 1, 1]) == [3, 4, 3] and share(7, [0, 3, 4]) == [0, 3, 4] and share(0, [1, 2]) == [0, 0]


def test_chat_in_whole_answers(site):
    site.answer = LanguageServer(continues=False)
    generator = text(site, chat=True, step=None, max_tokens=20)
    tree = search(PROMPT, generator, digits, BestOfN(3))
    assert all(n.depth == 1 and n.unit["reason"] in ("end", "length") for n in tree.nodes[1:])
    with pytest.raises(ServerError, match="does not go on exactly"):
        grow(generator, 1, steps=3)


def test_chat_in_steps_needs_a_server_that_goes_on(site):
    generator = text(site, chat=True, max_steps=3)
    tree = search(PROMPT, generator, digits, Beam(2, 2))
    last = site.seen[-1]["messages"][-1]
    assert last["role"] == "assistant" and last["content"].endswith("\n") and len(tree.best().output.steps) > 1
    for server in (LanguageServer(continues=False), LanguageServer(trims=True)):
        site.answer = server
        with pytest.raises(ServerError, match=r"generator 'openai'.*does not go on exactly.*step=None"):
            text(site, chat=True).begin(PROMPT)


def test_a_chat_may_call_the_limit_by_its_other_name(site):
    site.answer = LanguageServer(refuses=("max_tokens",))
    _, (node,) = grow(text(site, chat=True, step=None, max_tokens=9), 1)
    assert site.seen[-1]["max_completion_tokens"] == 9 and node.status is Status.DONE
    with pytest.raises(ServerError, match="unsupported parameter max_tokens"):
        text(site).begin(PROMPT)


def test_many_prompts_are_asked_for_at_once(site):
    trees = search_many([PROMPT, "2*3=?\n", "9-1=?\n"], text(site, max_tokens=20), digits, BestOfN(2))
    assert all(tree.result for tree in trees) and site.busiest >= 3


def test_works_where_an_event_loop_is_running(site):
    async def cell():
        return search(PROMPT, text(site, max_tokens=20), digits, BestOfN(2))

    assert asyncio.run(cell()).best().output


@pytest.mark.parametrize(
    "settings",
    [
        {"step": ""},
        {"step": 0},
        {"step": True},
        {"step": ["\n"]},
        {"stop": "\n"},
        {"stop": [""]},
        {"stop": list("abcd")},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"top_p": 0},
        {"max_tokens": 0},
        {"max_step": 0},
        {"max_steps": 0},
        {"template": "no place"},
        {"system": "but no chat"},
        {"url": "localhost:8000"},
        {"concurrency": 0},
    ],
)
def test_settings_are_checked(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        OpenAIText(**{"url": "http://127.0.0.1:1", "model": "tiny", **settings})
