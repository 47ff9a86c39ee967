from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kafal_pipeline.config import FederationConfig
from kafal_pipeline.federation.participants import participants


def draw(clients=10, round_=0, seed=0, cycle=0, **options):
    values = {"rounds": 50, "participation": 0.8, "participants_rounding": "floor", "all_clients_last_round": True}
    federation = FederationConfig(**{**values, **options})
    return participants(list(range(clients)), federation, seed=seed, cycle=cycle, round_=round_)


@pytest.mark.parametrize(
    ("clients", "rounding", "expected"), [(10, "floor", 8), (10, "ceil", 8), (7, "floor", 5), (7, "ceil", 6)]
)
def test_number_follows_the_rounding(clients, rounding, expected):
    assert len(draw(clients, participants_rounding=rounding)) == expected


def test_everybody_takes_part_in_the_last_round_where_asked():
    assert draw(round_=49) == list(range(10))
    assert len(draw(round_=49, all_clients_last_round=False)) == 8
    assert len(draw(round_=48)) == 8


def test_draws_differ_by_round_cycle_and_seed_and_repeat():
    draws = [draw(round_=r, cycle=c, seed=s) for r in range(4) for c in range(3) for s in range(3)]
    assert len({tuple(item) for item in draws}) > 15
    assert draw(round_=3, seed=5) == draw(round_=3, seed=5)


@given(st.integers(1, 60), st.floats(0.01, 1.0), st.integers(0, 9))
def test_at_least_one_distinct_sorted(clients, participation, round_):
    chosen = draw(clients, participation=participation, round_=round_)
    assert 1 <= len(chosen) <= clients
    assert chosen == sorted(set(chosen))
    assert set(chosen) <= set(range(clients))


def test_all_clients_get_their_turn():
    assert set().union(*(draw(round_=r, participation=0.2) for r in range(40))) == set(range(10))
