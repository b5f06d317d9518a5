"""The survey's taxonomy: ids, cards, contrasts."""

from dataclasses import replace

import pytest

from prunus.errors import SettingError
from prunus.sparse.importance import SNIP, Random
from prunus.sparse.methods import METHODS, LayerLottery, LotteryTicket, OneShot
from prunus.sparse.scope import NofM, Units
from prunus.sparse.taxonomy import CRITERIA, FUSION, LEARN, PAIRS, SPEEDUP, TAGS, WHEN, clean_pairs, contrast, query


def test_every_id_is_unique():
    words = [*SPEEDUP, *WHEN, *CRITERIA, *LEARN, *FUSION]
    assert len(TAGS) == len(words) == len({tag for t in (SPEEDUP, WHEN, CRITERIA, LEARN, FUSION) for tag in t.values()})
    assert [pair.id for pair in PAIRS] == [f"P{i}" for i in range(1, 9)]
    assert [pair.id for pair in PAIRS if pair.inferred] == ["P5", "P6", "P7", "P8"]


@pytest.mark.parametrize(
    ("paper", "tags"),
    [
        ("10", {"S.struct", "W.pbt", "C.sens"}),
        ("12", {"S.unstr", "W.pat", "C.mag"}),
        ("25", {"S.unstr", "W.pdt", "C.mag", "C.sens"}),
        ("26", {"S.unstr", "W.pat", "C.mag"}),
        ("36", {"S.struct", "W.pdt", "L.score"}),
        ("48", {"S.unstr", "W.pat", "C.mag"}),
        ("53", {"S.struct", "W.pdt", "L.reg"}),
    ],
)
def test_the_cards_tags(paper, tags):
    (card,) = query((m().taxonomy for m in METHODS.values()), paper=paper)
    assert set(card.tags) == tags and tags <= set(TAGS)


def test_one_shot_and_iterative_magnitude_differ_in_one_thing():
    one_shot = OneShot(retrain="rewind").taxonomy
    iterative = LotteryTicket(scope="global").taxonomy
    assert contrast(one_shot, iterative) == {"iterative"}
    structured = replace(one_shot, speedup=frozenset({"structured"}), granularity=frozenset({"N"}))
    assert contrast(one_shot, structured) == {"speedup", "granularity"}
    assert contrast(one_shot, one_shot) == set()


def test_only_the_layer_lottery_is_structured_before_training():
    cards = [m().taxonomy for m in METHODS.values()]
    assert [c.paper for c in query(cards, speedup="structured", when="before_training")] == ["10"]
    assert [c.name for c in query(cards, criteria="sensitivity", when="during_training")] == ["GraNet", "RigL"]
    assert LayerLottery().taxonomy.universal and not LotteryTicket().taxonomy.universal
    with pytest.raises(SettingError, match="colour"):
        query(cards, colour="red")


def test_one_shots_card_follows_from_its_parts():
    random = OneShot(importance=Random(), at="init").taxonomy
    assert random.criteria == {"chance"} and random.data == "free" and random.when == "before_training"
    assert OneShot(importance=SNIP()).taxonomy.data == "driven" and OneShot().taxonomy.kind == {"train_prune_finetune"}
    sparse = OneShot(scope=NofM()).taxonomy
    assert sparse.speedup == {"semi_structured"} and not sparse.universal
    assert OneShot(scope=Units({}), retrain="scratch").taxonomy.universal


def test_clean_pairs_are_those_that_differ_in_the_pairs_fields_alone():
    layer, over_all = LotteryTicket().taxonomy, replace(LotteryTicket(scope="global").taxonomy, name="global")
    init, trained = OneShot(importance=SNIP(), at="init").taxonomy, OneShot(importance=SNIP(), retrain="none").taxonomy
    found = clean_pairs([layer, over_all, init, trained])
    assert [(p.id, a.name, b.name) for p, a, b in found] == [
        ("P4", "one-shot SNIP", "one-shot SNIP"),
        ("P8", "lottery ticket", "global"),
    ]


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"when": "before_training", "kind": frozenset()}, "no pretrained"),
        ({"granularity": frozenset({"N"})}, "single weights"),
        ({"speedup": frozenset({"structured"})}, "unstructured or semi"),
        ({"criteria": frozenset()}, "criteria or by learning"),
        ({"static": False}, "run_time"),
        ({"criteria": frozenset({"loss_change"})}, "needs data"),
        ({"when": "during_training"}, "lottery_ticket"),
        ({"criteria": frozenset({"luck"})}, "luck"),
        ({"retrain": "perhaps"}, "perhaps"),
    ],
)
def test_impossible_mixes_are_refused(change, rule):
    with pytest.raises(SettingError, match=rule):
        replace(LotteryTicket().taxonomy, **change)
