import pytest
from kedro.pipeline import node

from kafal_pipeline.config import resolve
from kafal_pipeline.lifecycle.closing_lines import ClosingLines, next_steps
from kafal_pipeline.lifecycle.current_run import CurrentRun


def test_next_steps_name_the_folder_the_tracker_and_another_query():
    assert next_steps(resolve({"query": "ksas"}), "data/08_reporting/run").splitlines() == [
        "Summary, tables, figures  data/08_reporting/run",
        "Runs side by side         mlflow ui",
        "Another query             kedro run --pipeline fal --params query=random   (and this run's other options)",
    ]


@pytest.mark.parametrize(
    ("tracking", "shown"),
    [
        ({"uri": "https://tracker.example:5000"}, "https://tracker.example:5000"),
        ({"uri": "sqlite:///runs.db"}, "mlflow ui --backend-store-uri sqlite:///runs.db"),
        (
            {"uri": "postgresql+psycopg2://me:s@host/runs"},
            "mlflow ui --backend-store-uri postgresql+psycopg2://***@host/runs",
        ),
        ({"uri": "mlruns"}, "mlflow ui --backend-store-uri mlruns"),
        ({"uri": "databricks"}, "  databricks"),
        ({"uri": "databricks://profile"}, "  databricks://profile"),
    ],
)
def test_next_steps_name_the_tracker_in_use(tracking, shown):
    assert next_steps(resolve({"tracking": tracking}), "run").splitlines()[1].endswith(f"  {shown}")


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (None, ["Runs side by side         mlflow ui", " " * 26 + "http://127.0.0.1:5000/#/page"]),
        ("https://me:s@tracker.example/", ["Runs side by side         https://***@tracker.example/#/page"]),
        ("databricks", ["Runs side by side         databricks"]),
    ],
)
def test_next_steps_name_the_page_of_the_runs(monkeypatch, uri, shown):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    lines = next_steps(resolve({"tracking": {"uri": uri}}), "run", "#/page").splitlines()
    assert lines[1:-1] == shown


def test_next_steps_without_tracking_name_no_tracker():
    assert "mlflow" not in next_steps(resolve({"tracking": False}), "run")


def test_after_the_random_query_another_one_is_proposed():
    assert "query=ksas" in next_steps(resolve({"query": "random"}), "run")


def test_what_a_node_puts_out_as_text_is_said_once_the_run_has_ended(capsys):
    closing = ClosingLines(CurrentRun())
    closing.after_node(node(lambda x: x, "x", "closing_lines", name="any"), {"closing_lines": "4 answers"})
    assert not capsys.readouterr().out
    closing.show()
    closing.show()
    assert capsys.readouterr().out == "\n4 answers\n"
