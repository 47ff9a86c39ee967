from __future__ import annotations

import numpy as np
import pytest

from kafal_pipeline.annotation.verdicts import Verdict, kappa, verdicts


def said(answer, *votes):
    """Answers about one image, by people a, b, c ...: a class, or a status."""
    people = "abcdef"
    statuses = {"skipped", "unusable", "unknown_class", "open"}
    return [
        answer("s1", None if vote in statuses else vote, vote if vote in statuses else None, annotator=people[place])
        for place, vote in enumerate(votes)
    ]


@pytest.mark.parametrize(
    ("votes", "outcome", "label"),
    [
        (["ape"], "labelled", "ape"),
        (["ape", "ape", "bee"], "labelled", "ape"),
        (["ape", "bee"], "conflict", None),
        (["ape", "bee", "cat"], "conflict", None),
        (["ape", "skipped"], "labelled", "ape"),
        (["skipped", "skipped"], "skipped", None),
        (["ape", "unusable"], "conflict", None),
        (["unusable", "unusable", "ape"], "unusable", None),
        (["unknown_class"], "unknown_class", None),
    ],
)
def test_the_majority_holds(answer, votes, outcome, label):
    found = verdicts(said(answer, *votes))["s1"]
    assert (found.outcome, found.label) == (outcome, label)


def test_withdrawn_answers_and_too_few_leave_an_image_open(answer):
    assert "s1" not in verdicts(said(answer, "open"))
    assert verdicts(said(answer, "ape"), wanted=2)["s1"].outcome == "open"
    assert verdicts(said(answer, "ape", "ape"), wanted=2)["s1"].annotators == "a, b"


def test_the_latest_answer_of_a_person_counts(answer):
    first, later = answer("s1", "ape"), answer("s1", "bee", time="2026-03-01T00:00:00.000+00:00")
    assert verdicts([later, first])["s1"].label == "bee"
    assert verdicts([first, later])["s1"].time == later.time


def of(answer, *rows):
    return {
        f"s{number}": Verdict("labelled", None, tuple(answer(f"s{number}", vote, annotator=who) for who, vote in row))
        for number, row in enumerate(rows)
    }


def test_two_people_have_cohens_kappa(answer):
    sklearn = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    first = rng.choice(["ape", "bee", "cat"], 50)
    second = np.where(rng.random(50) < 0.7, first, rng.choice(["ape", "bee", "cat"], 50))
    rows = [[("ann", str(a)), ("bob", str(b))] for a, b in zip(first, second, strict=True)]
    assert kappa(of(answer, *rows)) == pytest.approx(sklearn.cohen_kappa_score(first, second), abs=1e-12)


def test_more_people_have_fleiss_kappa(answer):
    # Fleiss (1971), as worked through in Wikipedia's article: 10 subjects, 14 raters, 5 categories: 0.210
    table = [
        [0, 0, 0, 0, 14], [0, 2, 6, 4, 2], [0, 0, 3, 5, 6], [0, 3, 9, 2, 0], [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0], [3, 2, 6, 3, 0], [2, 5, 3, 2, 2], [6, 5, 2, 1, 0], [0, 2, 2, 3, 7],
    ]  # fmt: skip
    rows = [
        [(f"p{rater}", str(cls)) for rater, cls in enumerate(np.repeat(np.arange(5), counts).tolist())]
        for counts in table
    ]
    assert kappa(of(answer, *rows)) == pytest.approx(0.210, abs=5e-4)


def test_kappa_of_nothing_and_of_all_the_same(answer):
    assert kappa(of(answer, [("ann", "ape")])) is None
    assert kappa(of(answer, [("ann", "ape"), ("bob", "ape")])) == 1.0


def test_who_settles_conflicts_does_not_make_people_agree(answer):
    images = [[("ann", "ape"), ("bob", "ape")], [("ann", "bee"), ("bob", "bee")]] * 4
    disputed = [[("ann", "ape"), ("bob", "bee")]] * 2
    settled = [[*of_image, ("cem", "ape")] for of_image in disputed]
    assert kappa(of(answer, *images, *settled)) == pytest.approx(kappa(of(answer, *images, *disputed)), abs=0.02)
