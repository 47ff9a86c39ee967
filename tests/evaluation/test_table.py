from kafal_pipeline.evaluation import format_table, learning_curve


def test_the_table_to_the_letter(make_metrics):
    metrics = make_metrics(cycles=2)
    metrics[1] |= {"labels": 12523, "balanced_accuracy": None}
    assert format_table(learning_curve(metrics)).splitlines() == [
        "cycle  labels    share  accuracy  balanced accuracy     AULC",
        "-----  ------  -------  --------  -----------------  -------",
        "    0     100  10.00 %   50.00 %            40.00 %  50.00 %",
        "    1  12,523  15.00 %   60.00 %                  -  55.00 %",
    ]


def test_skipped_clients_have_a_line_below_the_table(make_metrics):
    metrics = make_metrics()
    plain = format_table(learning_curve(metrics))
    assert format_table(learning_curve(metrics), "AMD EPYC (avx2)") == f"{plain}\n\nProcessor: AMD EPYC (avx2)"
    metrics[0]["skipped_client_rounds"], metrics[2]["skipped_client_rounds"] = 2, 1
    table, _, line = format_table(learning_curve(metrics)).rpartition("\n\n")
    assert table == plain
    assert "3 times, in cycles 0, 2" in line


def test_what_people_did_has_a_table_of_its_own_below(make_metrics, make_people_metrics):
    table, _, below = format_table(learning_curve(make_people_metrics(cycles=2))).partition("\n\n")
    assert table == format_table(learning_curve(make_metrics(cycles=2)))
    assert below.splitlines() == [
        "cycle  labelled  skipped  unusable  unknown class  conflicts  kappa  s/label  hours",
        "-----  --------  -------  --------  -------------  ---------  -----  -------  -----",
        "    0     1,000        0         0              1          2      -      2.2   0.65",
        "    1     1,050       10         0              1          2   0.81      2.2   0.68",
    ]
    assert "1,000" in format_table(learning_curve(make_people_metrics(cycles=1, timed=False)))
