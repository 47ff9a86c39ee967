from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from kafal_pipeline.annotation.desk import Desk
from kafal_pipeline.annotation.measures import annotation_measures
from kafal_pipeline.annotation.pools import (
    annotated_pool,
    first_choice,
    labels_of_tests,
    later_choice,
    unlabelled_pool,
)
from kafal_pipeline.common.errors import UserError, Waiting
from kafal_pipeline.data.pools import check_pool, client_pools, initial_pool
from kafal_pipeline.query.first import first_order

SPLIT = [list(range(30)), list(range(30, 60))]


@pytest.fixture
def ask(tmp_path, truth, people, answer, identified):
    """A run of people: ``ask.desk()``, and ``ask.answer(rows, label=...)``."""

    class Asking:
        def __init__(self):
            self.images = identified(truth, np.zeros(60, dtype=bool))
            self.config = people()
            self.clock = 0

        def desk(self):
            folders = (tmp_path / "requests", tmp_path / "answers")
            return Desk("mine/ksas-kcfu/seed_0", *folders, self.images, self.config.annotation, None)

        def say(self, part, rows, label=None, status=None, annotator="ann"):
            ids = self.images.train_ids if part == "train" else self.images.test_ids
            right = truth.train_labels if part == "train" else truth.test_labels
            for row in rows:
                self.clock += 1
                given = None if status else truth.classes[right[row]] if label is None else label
                time = f"2026-01-01T00:{self.clock // 60:02d}:{self.clock % 60:02d}.000+00:00"
                client = int(row >= 30) if part == "train" else row % 2
                said = answer(str(ids[row]), given, status, annotator, time, seconds=2.0)
                self.desk().store.add(client, [said])

        def first(self):
            choice = first_choice(SPLIT, self.images, self.config)
            return choice, lambda: self.desk().annotations(0, choice, None)

    return Asking()


def test_labels_that_are_missing_are_asked_for_and_the_run_waits(ask):
    choice, gather = ask.first()
    with pytest.raises(Waiting, match="Cycle 0 waits for labels of 12 images"):
        gather()
    requests = ask.desk().requests()
    assert [(request.client, len(request.samples)) for request in requests] == [(0, 6), (1, 6)]
    ask.say("train", choice["sample"])
    found = gather()
    pool = annotated_pool(unlabelled_pool(SPLIT, ask.images.train_labels), found, 0)
    assert (pool["labelled_in_cycle"] == 0).sum() == 12
    assert set(pool["annotator"]) == {"", "ann"}
    check_pool(pool, ask.images.train_labels, 0)


def test_people_who_know_everything_make_the_oracles_pool(ask, truth):
    choice, gather = ask.first()
    ask.say("train", choice["sample"])
    pool = annotated_pool(unlabelled_pool(SPLIT, ask.images.train_labels), gather(), 0)
    expected = initial_pool(SPLIT, truth.train_labels, ask.config.budget, 2, ask.config.seed)
    pd.testing.assert_frame_equal(pool[expected.columns], expected)


@pytest.mark.parametrize("how", ["k_means", "herding"])
def test_people_are_asked_for_what_an_oracle_would_reveal_first(ask, truth, identified, how):
    drawn, _ = ask.first()
    budget = ask.config.budget.model_copy(update={"initial_query": how})
    ask.config = ask.config.model_copy(update={"budget": budget})
    choice, _ = ask.first()
    order = first_order(truth.train_images, how)
    pools = client_pools(initial_pool(SPLIT, truth.train_labels, budget, 2, ask.config.seed, order))
    for client in (0, 1):
        assert sorted(choice.loc[choice["client"] == client, "sample"]) == pools[client].labelled.tolist()
    assert set(choice["sample"]) != set(drawn["sample"])
    ask.images = identified(truth, np.isin(np.arange(60), choice["sample"].iloc[::2]))
    rest, _ = ask.first()
    assert len(rest) == 6
    assert not set(rest["sample"]) & set(choice["sample"].iloc[::2])


def test_what_has_a_label_counts_towards_the_budget(ask, truth, identified):
    known = np.zeros(60, dtype=bool)
    known[:4], known[30:38] = True, True
    ask.images = identified(truth, known)
    choice, gather = ask.first()
    assert choice["client"].tolist() == [0, 0]
    assert not set(choice["sample"]) & {0, 1, 2, 3}
    ask.say("train", choice["sample"])
    pools = client_pools(annotated_pool(unlabelled_pool(SPLIT, ask.images.train_labels), gather(), 0))
    assert [len(pools[client].labelled) for client in (0, 1)] == [6, 8]


def test_test_images_are_asked_first_and_counted_apart(ask, truth, identified):
    ask.images = identified(truth, np.ones(60, dtype=bool), test_known=False)
    choice, gather = ask.first()
    assert set(choice["part"]) == {"test"}
    ask.say("test", range(10))
    with pytest.raises(Waiting, match="Cycle 0 waits for labels of 2 images"):
        gather()
    ask.say("test", [10, 11], status="unusable")
    found = gather()
    assert labels_of_tests(ask.images, found).tolist() == [*truth.test_labels[:10], -1, -1]
    measures = annotation_measures(found)
    assert (measures["annotation_test_labels"], measures["annotation_asked"]) == (10, 0)


def test_test_images_alone_are_not_enough_to_train_on(ask, truth, identified):
    ask.images = identified(truth, np.zeros(60, dtype=bool), test_known=False)
    ask.config = ask.config.model_copy(
        update={"annotation": ask.config.annotation.model_copy(update={"complete": 0.5})}
    )
    choice, gather = ask.first()
    ask.say("test", choice.loc[choice["part"] == "test", "sample"])
    with pytest.raises(Waiting, match="Cycle 0 waits for labels of 12 images"):
        gather()
    mine, others = (choice.loc[(choice["part"] == "train") & (choice["client"] == k), "sample"] for k in (0, 1))
    ask.say("train", [*mine[:3], *others[:3]])
    assert (gather()["outcome"] == "open").sum() == 6


def test_declined_images_leave_and_open_ones_are_asked_again(ask):
    ask.config = ask.config.model_copy(
        update={"annotation": ask.config.annotation.model_copy(update={"complete": 0.5})}
    )
    choice, gather = ask.first()
    mine, others = (choice.loc[choice["client"] == client, "sample"].tolist() for client in (0, 1))
    ask.say("train", others)
    ask.say("train", mine[:2])
    ask.say("train", mine[2:3], status="unusable")
    first = gather()
    pool = annotated_pool(unlabelled_pool(SPLIT, ask.images.train_labels), first, 0)
    assert len(pool) == 59
    pools = client_pools(pool)
    assert sorted(pools[0].open.tolist()) == sorted(mine[3:])
    assert not set(pools[0].candidates) & set(mine)
    chosen = pools[0].candidates[:4]
    queried = pd.DataFrame({"client": 0, "sample": chosen, "score": 0.0, "rank": range(4)})
    with pytest.raises(Waiting):
        ask.desk().annotations(1, later_choice(pool, queried, ask.config), first)
    request = ask.desk().requests()[-1]
    assert [asked.row for asked in request.samples] == [*sorted(mine[3:], key=mine.index), *chosen]
    ask.say("train", mine[3:])
    ask.say("train", chosen)
    second = ask.desk().annotations(1, later_choice(pool, queried, ask.config), first)
    after = annotated_pool(pool, second, 1).set_index("sample")
    assert set(after.loc[mine[3:], "labelled_in_cycle"]) == {1}
    assert set(after.loc[mine[3:], "asked_in_cycle"]) == {0}
    assert set(after.loc[chosen, "asked_in_cycle"]) == {1}


def test_refill_asks_for_the_next_in_rank(ask, people):
    ask.config = people(refill=0.5)
    choice, gather = ask.first()
    mine = choice[choice["client"] == 0]
    ask.say("train", choice.loc[(choice["client"] == 1) & ~choice["reserve"], "sample"])
    ask.say("train", mine.loc[~mine["reserve"], "sample"][:5])
    with pytest.raises(Waiting, match="labels of 1 images"):
        gather()
    ask.say("train", mine.loc[~mine["reserve"], "sample"][5:], status="skipped")
    with pytest.raises(Waiting, match=r"labels of 1 images:\n  client 0: 1 of 7 to label, .*/client_000/refill_\*\n"):
        gather()
    assert [path.name for path in ask.desk().folder.glob("cycle_00/client_000/refill_*")] == ["refill_001"]
    ask.say("train", mine.loc[mine["reserve"], "sample"][:1])
    pool = annotated_pool(unlabelled_pool(SPLIT, ask.images.train_labels), gather(), 0)
    assert [len(mine.labelled) for mine in client_pools(pool).values()] == [6, 6]


def test_a_request_that_people_fill_in_is_left_alone_and_an_old_one_is_kept(ask):
    choice, gather = ask.first()
    with pytest.raises(Waiting):
        gather()
    table = ask.desk().folder / "cycle_00/client_000/to_label.csv"
    table.write_text("filled in")
    with pytest.raises(Waiting):
        gather()
    assert table.read_text() == "filled in"
    other = choice.assign(sample=(choice["sample"] // 30) * 30 + (choice["sample"] + 7) % 30)
    with pytest.raises(Waiting):
        ask.desk().annotations(0, other, None)
    (kept,) = table.parent.parent.glob("superseded/client_000-*/to_label.csv")
    assert kept.read_text() == "filled in"
    assert len(ask.desk().requests()) == 2


def test_a_label_that_changed_counts_from_the_next_pool_on(ask, truth, caplog):
    choice, gather = ask.first()
    ask.say("train", choice["sample"])
    first = gather()
    pool = annotated_pool(unlabelled_pool(SPLIT, ask.images.train_labels), first, 0)
    sample = int(choice["sample"][0])
    other = truth.classes[(truth.train_labels[sample] + 1) % 3]
    ask.say("train", [sample], label=other)
    second = ask.desk().annotations(1, choice.iloc[:0], first)
    after = annotated_pool(pool, second, 1).set_index("sample")
    assert after.loc[sample, "label"] == truth.classes.index(other)
    assert after.loc[sample, "labelled_in_cycle"] == 0
    assert "1 labels have changed since they were trained on" in caplog.text


def test_a_conflict_is_not_trained_on_and_a_third_person_settles_it(ask, people):
    ask.config = people(annotators=2)
    choice, gather = ask.first()
    ask.say("train", choice["sample"])
    ask.say("train", choice["sample"][1:], annotator="bob")
    ask.say("train", choice["sample"][:1], status="unusable", annotator="bob")
    with pytest.raises(Waiting, match="labels of 1 images; in 1 of them people disagree"):
        gather()
    ask.say("train", choice["sample"][:1], annotator="cem")
    measures = annotation_measures(gather())
    assert measures["annotation_labelled"] == 12
    assert measures["annotation_seconds_per_label"] == 2.0


def test_a_class_that_the_data_set_lost_is_named(ask):
    choice, gather = ask.first()
    ask.say("train", choice["sample"], label="apee")
    with pytest.raises(UserError, match=r"labelled 'apee', which is no class .* Did you mean 'ape'"):
        gather()
