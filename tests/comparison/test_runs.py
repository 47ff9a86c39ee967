import json
import re
import shutil

import pytest

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.comparison import compare, load_runs
from kafal_pipeline.comparison.analysis import warnings


def test_runs_become_tables(write_run):
    tables = load_runs([write_run("random", seed=0), write_run("ksas", seed=0), write_run("ksas", seed=1)])
    assert tables.runs[["strategy", "seed", "status"]].values.tolist() == [
        ["ksas-kcfu", 0, "finished"],
        ["ksas-kcfu", 1, "finished"],
        ["random-kcfu", 0, "finished"],
    ]
    assert len(tables.cycles) == 9
    assert "accuracy_cat" not in tables.cycles
    assert {"strategy", "seed", "cycle", "labels", "accuracy", "aulc", "bytes_sent"} <= set(tables.cycles)
    row = tables.classes.query("strategy == 'ksas-kcfu' and seed == 1 and cycle == 2 and `class` == 0").iloc[0]
    assert row["queried"] == 32
    assert tables.classes.query("`class` == 1")["accuracy"].isna().all()
    assert tables.class_names == ("cat", "dog")
    assert tables.configuration["training.augmentation.flip"] is False
    assert not [key for key in tables.configuration if key.startswith(("query", "update", "seed"))]
    assert tables.strategies["ksas-kcfu"]["query"]["name"] == "ksas"
    assert tables.clients.empty


def test_splits_become_a_table_of_clients(write_run, tmp_path):
    split = tmp_path / "split_table.csv"
    split.write_text("client,class,count\n0,0,5\n0,1,0\n")
    tables = load_runs([write_run(seed=3)], splits={3: split, 4: tmp_path / "of another seed.csv"})
    assert tables.clients.values.tolist() == [[3, 0, 0, 5], [3, 0, 1, 0]]
    shutil.rmtree(tmp_path / "07_model_output")
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "no.csv"))):
        load_runs([write_run(seed=3)], splits={3: tmp_path / "no.csv"})


class TestFailedRuns:
    def reasons(self, tables):
        failed = tables.runs[tables.runs["status"] == "failed"]
        return {(row.strategy, row.seed): row.reason for row in failed.itertuples()}

    def test_are_listed_with_their_reasons(self, write_run):
        good, never = write_run("random"), write_run("entropy").with_name("seed_7")
        unknown, short, broken = write_run("ksas"), write_run("badge", finished=2), write_run("fair-fal")
        (unknown / "configuration.json").unlink()
        (broken / "cycle_01" / "metrics.json").write_text('{"cycle": ')
        tables = load_runs([good, never, unknown, short, broken])
        reasons = self.reasons(tables)
        assert reasons[("entropy-kcfu", 7)] == "never ran"
        assert "parameters are not known" in reasons[("ksas-kcfu", 0)]
        assert reasons[("badge-kcfu", 0)] == "stopped in cycle 2 of 0..2"
        assert "cycle_01/metrics.json cannot be read" in reasons[("fair-fal-kcfu", 0)]
        assert set(tables.cycles["strategy"]) == {"random-kcfu"}
        query = tables.runs.set_index("strategy")["query"]
        assert query["fair-fal-kcfu"] == "fair-fal"

    def test_what_is_known_of_a_failure_goes_before_what_lies_there(self, write_run):
        good, failed = write_run("random"), write_run("ksas")
        tables = load_runs([good, failed], failures={failed: "out of memory"})
        assert self.reasons(tables) == {("ksas-kcfu", 0): "out of memory"}

    def test_runs_that_wait_for_labels_have_not_failed(self, write_run):
        folders = [write_run(query, seed=seed) for query in ("random", "ksas") for seed in (0, 1)]
        tables = load_runs(folders, failures={folders[0]: "no"}, waiting={folders[2]: "2 images wait"})
        found = tables.runs.set_index(["strategy", "seed"])
        assert found["status"].tolist() == ["waiting", "finished", "failed", "finished"]
        assert found.loc[("ksas-kcfu", 0), "reason"] == "2 images wait"
        comparison = compare(tables)
        assert comparison.summary["failed"].to_dict() == {"ksas-kcfu": 0, "random-kcfu": 1}
        assert warnings(comparison)[0] == "1 run waits for labels: this page lacks what is to come."
        assert warnings(comparison)[1].startswith("1 run failed")

    def test_without_any_finished_run_there_is_no_comparison(self, write_run, tmp_path):
        with pytest.raises(UserError, match="no folder was given"):
            load_runs([])
        with pytest.raises(UserError, match=r"no finished run.*never ran"):
            load_runs([tmp_path / "random-kcfu" / "seed_0"])


class TestRefused:
    def test_mixed_protocols_naming_the_keys(self, write_run):
        folders = [write_run("random"), write_run("ksas", training={"lr": 0.1, "augmentation": {"flip": True}})]
        with pytest.raises(UserError) as error:
            load_runs(folders)
        message = str(error.value)
        assert "training.lr: 0.05 and 0.1" in message
        assert "training.augmentation.flip: False and True" in message
        assert str(folders[0]) in message
        assert str(folders[1]) in message
        assert "cycles" not in message

    @pytest.mark.parametrize("oracle", [{}, {"annotation": {"source": "oracle"}}])
    def test_labels_by_an_oracle_and_by_people(self, write_run, oracle):
        people = write_run("ksas", annotation={"source": "people", "refill": 0.0})
        folders = [write_run("random", **oracle), people]
        with pytest.raises(
            UserError, match=r"random.* has labels by an oracle, and .*ksas.* by people \(annotation.source"
        ):
            load_runs(folders)
        assert len(load_runs([people]).runs) == 1

    def test_a_key_that_only_one_has(self, write_run):
        with pytest.raises(UserError, match="'?new.key'?: None and 1"):
            load_runs([write_run("random"), write_run("ksas", new={"key": 1})])

    def test_one_name_for_two_settings(self, write_run):
        with pytest.raises(UserError, match="stands for different options.*prior_smoothing"):
            load_runs([write_run("ksas", seed=0), write_run("ksas", seed=1, options={"prior_smoothing": 1})])

    def test_one_strategy_and_seed_twice(self, write_run, tmp_path):
        folder = write_run("ksas")
        twin = shutil.copytree(folder, tmp_path / "elsewhere")
        with pytest.raises(UserError, match="both ksas-kcfu with seed 0"):
            load_runs([folder, twin])

    def test_another_initial_pool_for_the_same_seed(self, write_run):
        folders = [write_run("random"), write_run("ksas")]
        file = folders[1] / "cycle_00" / "metrics.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"queried_histogram": [29, 21]}))
        with pytest.raises(UserError, match=r"different initial pools.*The split was made again"):
            load_runs(folders)
        file.write_text(json.dumps(json.loads(file.read_text()) | {"annotation_asked": 50}))
        with pytest.raises(UserError, match=r"different initial pools.*Labels came or changed in between"):
            load_runs(folders)

    def test_other_classes(self, write_run):
        with pytest.raises(UserError, match="different classes"):
            load_runs([write_run("random"), write_run("ksas", seed=1, classes=("cat", "cow"))])


def test_seed_query_update_and_label_of_the_data_may_differ(write_run):
    folders = [write_run("random"), write_run("ksas", update="fedavg", seed=1, dataset={"name": "toy", "label": "x"})]
    assert set(load_runs(folders).runs["status"]) == {"finished"}
