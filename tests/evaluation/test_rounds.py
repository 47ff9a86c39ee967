import pandas as pd

from kafal_pipeline.evaluation.rounds import aggregated


def test_failed_clients_are_left_out():
    rounds = pd.DataFrame({"client": [0, 1, 0, 1], "round": [0, 0, 1, 1], "failed": [False, True, False, False]})
    assert aggregated(rounds)["round"].tolist() == [0, 1, 1]


def test_tables_made_before_clients_could_fail_count_whole():
    rounds = pd.DataFrame({"client": [0, 1], "round": [0, 0]})
    assert aggregated(rounds).equals(rounds)
