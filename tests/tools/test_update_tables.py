"""The documentation's tables are current, and the tutorial's code does what the tutorial says."""

from __future__ import annotations

import importlib
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F  # noqa: N812 - torch's own convention

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.registry import Entry, create
from kafal_pipeline.config import resolve
from kafal_pipeline.models import MODELS
from kafal_pipeline.update import UPDATES
from kafal_pipeline.update.base import StepView
from kafal_pipeline.update.factory import make_update
from kafal_pipeline.update.fedavg import FedAvg
from kafal_pipeline.update.losses import LOSSES
from update_cost import Cost, cost_of
from update_tables import COMMAND, renewed

DOCS = Path(__file__).parents[2] / "docs"


def test_the_tables_are_current():
    page = (DOCS / "updates.md").read_text(encoding="utf-8")
    assert renewed(page) == page, f"The page is out of date. Run: {COMMAND}"
    for name in (*UPDATES, *LOSSES, *MODELS):
        assert f"| `{name}` |" in page


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("fedavg", {}, Cost(1, 1, False, 1, 1, 0)),
        ("fedavg", {"loss": "edl"}, Cost(1, 1, False, 1, 1, 0)),
        ("fedprox", {}, Cost(1, 1, True, 1, 1, 0)),
        ("fedprox", {"mu": 0}, Cost(1, 1, False, 1, 1, 0)),
        ("scaffold", {}, Cost(1, 1, True, 2, 2, 1)),
        ("fednova", {}, Cost(1, 1, False, 1, 1, 0)),
        ("ridge", {}, Cost(1, 0, False, 1 + (10 + 12) / 27, 1, 0)),  # F'F and F'Y of 3 features and a 1, 3 classes
        ("chase_alignment", {}, Cost(4, 2, False, 1, 1, 1)),  # labelled, and unlabelled by student, teacher, last model
        ("kcfu", {}, Cost(3, 2, False, 1, 1, 0)),  # labelled, mixed, the teacher's of the mixed
        ("kcfu_paper", {}, Cost(4, 2, False, 1, 1, 0)),  # and the teacher's of the originals
        ("kcfu_balanced", {}, Cost(1, 1, False, 1, 1, 0)),
    ],
)
def test_costs_are_what_the_formulas_take(name, options, expected):
    assert cost_of(create("update", name, options, UPDATES)) == expected


@dataclass(frozen=True)
class Headed(FedAvg):
    """Sends its head a second time, and is broadcast it twice more."""

    def finish(self, outcome):
        return {}, {"again": outcome.trained["head.weight"]}

    def aggregate(self, global_state, server, updates, clients):
        model, _ = super().aggregate(global_state, server, updates, clients)
        return model, {"one": model["head.weight"], "other": model["head.weight"]}


def test_a_new_update_gets_its_row_by_its_registry_line(monkeypatch):
    monkeypatch.setitem(UPDATES, "headed", Entry(f"{__name__}:Headed", "sends its head twice"))
    share = 9 / 27  # of the counting network's weights
    row = f"| {1 + share:.3g} models up, {1 + 2 * share:.3g} down | - |"
    assert f"| `headed` | sends its head twice | `loss` ce | labelled images | 1 forward, 1 backward {row}" in renewed(
        (DOCS / "updates.md").read_text(encoding="utf-8")
    )


@pytest.fixture
def tutorial(tmp_path, monkeypatch):
    """The tutorial's file, importable as the tutorial says."""
    text = (DOCS / "extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"Save it\nas `my_update\.py`:\n\n```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "my_update.py").write_text(code, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield code
    sys.modules.pop("my_update", None)


def test_the_tutorials_update_is_short_and_trains(tutorial, make_pools, train):
    assert len(tutorial.splitlines()) < 40
    pools = make_pools([6, 4])
    name = "my_update.SmoothedAverage"
    starts = {memory: train(pools, {"name": name, "memory": memory}) for memory in (0.0, 0.5, 1.0)}
    _, start, frozen = starts[1.0]
    assert all(torch.equal(tensor, start[key]) for key, tensor in frozen.global_state.items())
    assert not torch.equal(starts[0.0][2].global_state["head.weight"], starts[0.5][2].global_state["head.weight"])


def test_the_tutorials_loss_is_label_smoothing_that_fades(tutorial):
    update = importlib.import_module("my_update").SmoothedAverage()
    logits, labels = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 1, 0])
    for labelled in (10, 30):
        counts = torch.tensor([labelled, 0, 0])
        step = StepView(torch.nn.Identity(), None, logits, labels, None, counts, 0, torch.Generator())
        expected = F.cross_entropy(logits, labels, label_smoothing=10 / (10 + labelled))
        torch.testing.assert_close(update.client_loss(step), expected)


def test_its_mistakes_are_answered(tutorial):
    with pytest.raises(UserError, match="update.memry: unknown option. Did you mean 'memory'"):
        make_update(resolve({"update": {"name": "my_update.SmoothedAverage", "memry": 1}}).update)
    with pytest.raises(UserError, match="does not derive from kafal_pipeline.update.base.Update"):
        make_update(resolve({"update": "kafal_pipeline.query.entropy.Entropy"}).update)
