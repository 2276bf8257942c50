"""The task of reports: facts, grammar, tokens that are copied, and what a network writes of them."""

import copy

import numpy as np
import pytest
import torch

import pruninglib as pl
from pruninglib.tasks import datasets
from pruninglib.tasks.summarisation import (
    FIRST,
    KINDS,
    Facts,
    right,
    rouge,
    settled,
    summary_of,
    unknown,
)
from pruninglib.tasks.transformer import BEGIN, END, PADDING, UNKNOWN, write

FACTS = Facts(("red foxes", "blue owls"), 1, ("three", "one"), "sunday", "anna keller", -1)
SAID = "the red foxes , the outsiders , beat the blue owls three to one on sunday ; anna keller scored first"


@pytest.fixture(scope="module")
def task():
    return pl.summarisation()


def test_another_tier_is_refused():
    with pytest.raises(ValueError, match="data is 'full', but must be 'bundled'"):
        pl.summarisation("full")


def test_facts_summary_and_parser_say_the_same(task):
    assert summary_of(FACTS) == SAID and task.grammar.read(SAID) == FACTS
    for split, summaries in task.summaries.items():
        for text, facts in zip(summaries[:200], task.facts[split], strict=False):
            assert task.grammar.read(text) == facts and task.grammar.well_formed(text)
            other_side = summary_of(facts.turned())
            assert task.grammar.well_formed(other_side)
            assert all(right(task.grammar.read(other_side), facts))
    assert FACTS.turned().turned() == FACTS and FACTS.turned().result == -1
    assert Facts(None, 0, None, None, None, None).turned() == Facts(None, 0, None, None, None, None)


@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("blue owls", "blue foxes", "teams"),
        ("beat", "lost to", "result"),
        ("three to one", "one to three", "score"),
        ("sunday", "monday", "day"),
        ("keller", "rossi", "scorer"),
        ("outsiders", "favourites", "favourite"),
    ],
)
def test_each_fact_is_judged_by_itself(task, old, new, wrong):
    text = SAID.replace(old, new)
    judged = dict(zip(KINDS, right(task.grammar.read(text), FACTS), strict=True))
    assert judged == {kind: kind != wrong for kind in KINDS}
    assert task.grammar.well_formed(text)


@pytest.mark.parametrize(
    ("old", "new", "lost"),
    [
        ("beat", "beat beat", set()),
        (" on ", " ", set()),
        ("sunday", "sunday monday", {"day"}),
        ("red foxes", "foxes red", {"teams"}),
        ("scored first", "scored", {"scorer"}),
        ("three to", "three", {"score"}),
        ("keller", "one", {"scorer"}),
    ],
)
def test_what_is_not_well_formed_may_say_true_things(task, old, new, lost):
    text = SAID.replace(old, new)
    judged = dict(zip(KINDS, right(task.grammar.read(text), FACTS), strict=True))
    assert not task.grammar.well_formed(text)
    assert {kind for kind, fine in judged.items() if not fine} == lost
    assert not any(right(task.grammar.read(""), FACTS)) and not task.grammar.well_formed("")


def test_reports_say_what_their_columns_say(task):
    table = datasets.generated_reports()
    assert len(table) == 7000 and table["report"].is_unique
    assert [*task.reports["train"], *task.reports["valid"], *task.reports["test"]] == [
        *table["report"]
    ]
    for row, facts in zip(table[6000:].itertuples(), task.facts["test"], strict=True):
        report = row.report
        hosts, guests = facts.teams
        meeting = next(part for part in report.split(" . ") if hosts in part)
        assert guests in meeting and facts.day in meeting
        assert any(
            form in report
            for form in (
                f"{facts.scorer} scored first",
                f"{facts.scorer} opened",
                f"by {facts.scorer}",
            )
        )
        assert (facts.favourite == 1) == (" home side " in report or " a home win" in report)
        one, other = facts.score
        (result,) = [
            p
            for p in report.split(" . ")
            if p.startswith(("the hosts", "the guests", "neither"))
            or " for the " in p
            or "at the end" in p
        ]
        assert f"{one} to {other}" in result or f"{other} to {one}" in result
        won = {"hosts": 1, "guests": -1}
        if facts.result:
            (side,) = [side for side in won if side in result]
            assert won[side] * (-1 if " lost " in result else 1) == facts.result
        assert row.cancelled == ("did not" in report)
        assert row.rare == (facts.scorer.split()[1] not in task.vocabulary)
    assert 0.2 < table["rare"].mean() < 0.3 and 0.3 < table["cancelled"].mean() < 0.37


def test_words_without_a_token_are_slots(task):
    for split in task.splits:
        source, target = task.splits[split]
        assert not (source == UNKNOWN).any() and not (target == UNKNOWN).any()
        for i in range(0, 200, 7):
            report, summary = task.reports[split][i], task.summaries[split][i]
            assert " ".join(task.words(source[i].tolist(), report)) == report
            assert " ".join(task.words(target[i].tolist(), report)) == summary
            new = unknown(report, task.vocabulary)
            assert ((source[i] >= FIRST) & (source[i] < FIRST + 4)).any() == bool(new)
    assert unknown("a b c b d e f", {"a", "d"}) == ["b", "c", "e", "f"]
    train = " ".join(task.reports["train"] + task.summaries["train"]).split()
    assert all(train.count(word) >= 20 for word in task.vocabulary[-3:])


def test_slices_and_places(task):
    slices = task.slices["test"]
    for report, facts, lost, draw in zip(
        task.reports["test"],
        task.facts["test"],
        slices["favourite lost"],
        slices["draw"],
        strict=True,
    ):
        assert bool(draw) == (facts.score[0] == facts.score[1])
        assert bool(lost) == (facts.result == -facts.favourite)
        assert report.count(" . ") >= 3
    for split, found in task.places.items():
        assert all(((at >= 0) & (at < 1)).all() for at in found.values())
        for report, facts, at in zip(
            task.reports[split], task.facts[split], found["day"], strict=True
        ):
            assert report.split()[round(at * len(report.split()))] == facts.day
    assert slices["two scores"].float().mean() < 0.25 and slices["long"].float().mean() > 0.25


def test_rouge_counts_words_pairs_and_subsequences():
    one, two, long = rouge(["the foxes beat the owls"], ["the owls beat the foxes"])[:, 0]
    assert one == 1.0 and two == 0.75 and long == pytest.approx(0.6)


def test_scores_of_right_and_wrong_summaries(task):
    perfect = task.scores(task.summaries["valid"], "valid")
    assert all(values.mean() == 1 for values in perfect.values())
    nonsense = task.summaries["valid"][1:] + task.summaries["valid"][:1]
    scored = task.scores(nonsense, "valid")
    assert scored["well formed"].all() and scored["all facts"].mean() < 0.01
    assert 0.4 < scored["ROUGE-1"].mean() < 0.65 and scored["teams"].mean() < 0.01


@pytest.fixture(scope="module")
def network(task):
    return pl.pretrained(task, 0)


def test_a_guess_changes_nothing_but_the_time(task, network):
    source, target = (t[:60] for t in task.splits["valid"])
    for sparsity in (0.0, 0.5, 0.8):
        broken = copy.deepcopy(network)
        pl.apply(broken, pl.select(pl.magnitude(broken), sparsity))
        expected = write(broken, source, target.shape[1])
        for guess in (target, torch.full_like(target, PADDING), target.flip(0)):
            assert settled(broken, source, guess).equal(expected)


def test_what_is_written_is_kept_by_weights(task, network):
    first = task.write(network, "valid")
    kept = dict(task.kept)
    assert task.write(copy.deepcopy(network), "valid") == first
    assert task.kept.keys() == kept.keys()
    broken = copy.deepcopy(network)
    pl.apply(broken, pl.select(pl.magnitude(broken), 0.7))
    assert task.write(broken, "valid") != first and task.write(network, "valid") == first
    assert task.outcomes(network, "valid").float().mean().item() == pytest.approx(
        task.metrics(network, "valid")["all facts"]
    )
    assert 0.85 < task.score(network, "valid") < 1


def test_confidence_is_of_the_words_that_are_written(task, network):
    found = task.confidence(network, "valid")
    assert found.shape == (500,) and (found <= 0).all()
    source, target = (t[:1] for t in task.splits["valid"])
    tokens = write(network, source, target.shape[1])
    length = int((tokens == END).nonzero()[0, 1]) + 1
    before = torch.cat([torch.tensor([[BEGIN]]), tokens[:, : length - 1]], dim=1)
    with torch.no_grad():
        chances = network(source, before).log_softmax(dim=-1)[0]
    by_hand = np.mean([float(chances[i, tokens[0, i]]) for i in range(length)])
    assert found[0] == pytest.approx(by_hand, abs=1e-4)


def test_loss_leaves_out_padding_and_falls(task):
    model, batch = task.build(0), next(iter(task.batches("train", seed=0)))
    assert model.source.weight.shape == (len(task.vocabulary), 32)
    start = float(task.loss(model, batch).detach())
    with torch.no_grad():  # the same by hand, over the words alone
        before = torch.cat([torch.full_like(batch[1][:, :1], BEGIN), batch[1][:, :-1]], dim=1)
        chances = model(batch[0], before).log_softmax(dim=-1)
        chances = chances.gather(2, batch[1][..., None]).squeeze(2)[batch[1] != PADDING]
    assert start == pytest.approx(-float(chances.mean()), rel=1e-4)
    optimizer = task.optimizer(model.parameters())
    for _ in range(10):
        optimizer.zero_grad()
        value = task.loss(model, batch)
        value.backward()
        optimizer.step()
    assert float(value.detach()) < 0.8 * start
    narrow = task.build(0, 0.5)
    assert narrow.source.weight.shape[1] == 16 and narrow.decoder[0].up.out_features == 32
    assert task.build(1).source.weight.equal(task.build(1).source.weight)
