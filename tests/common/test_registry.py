from __future__ import annotations

import sys
from dataclasses import dataclass, field

import pytest
import torch

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.common.registry import check_name, create
from kafal_pipeline.query import QUERIES
from kafal_pipeline.update import UPDATES


def test_options_go_before_those_the_name_presets():
    assert create("query", "ksas_paper", {}, QUERIES).global_model == "downloaded"
    assert create("query", "ksas_paper", {"global_model": "final"}, QUERIES).global_model == "final"


def test_a_dotted_path_needs_no_registration():
    assert create("query", "kafal_pipeline.query.entropy.Entropy", {"model": "local"}, QUERIES).model == "local"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("ksass", {}, "Did you mean 'ksas'"),
        (".ksas", {}, "found '.ksas'"),
        ("ksas.", {}, "found 'ksas.'"),
        (".a.b", {}, "found '.a.b'"),
        ("kafal_pipeline.query.ksas.discrepancy", {}, "is no class"),
        ("collections.OrderedDict", {}, "not a dataclass"),
        ("ksas", {"prior_smoothing": float("inf")}, "less than or equal to 1000000"),
        ("ksas", {"prior_smoothing": float("nan")}, "found nan"),
        ("nowhere.at.All", {}, "no module 'nowhere'"),
        ("kafal_pipeline.query.entropy.Nothing", {}, "no class 'Nothing'"),
        ("ksas", {"prior_smothing": 1}, "Did you mean 'prior_smoothing'"),
        ("ksas", {"prior_smoothing": -1}, "query.prior_smoothing: found -1"),
        ("ksas", {"global_model": "best"}, "'final' or 'downloaded'"),
        ("random", {"x": 1}, "query.x: unknown option"),
    ],
)
def test_mistakes_are_answered(name, options, message):
    with pytest.raises(UserError, match=message):
        create("query", name, options, QUERIES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = (\n", r"broken_query\.py:1"),
        ("import no_such_package\n", "No module named 'no_such_package'"),
        ("a = 1\nraise OSError('disk')\n", r"broken_query\.py:2: OSError"),
    ],
)
def test_a_users_file_that_fails_is_named_with_its_line(tmp_path, monkeypatch, text, message):
    (tmp_path / "broken_query.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "broken_query", raising=False)
    with pytest.raises(UserError, match=message):
        create("query", "broken_query.Mine", {}, QUERIES)


@dataclass(frozen=True)
class Own:
    """A user's class with an option that it needs, a type that pydantic does not know, and a rule of its own."""

    low: int
    high: int = 10
    _start: torch.Tensor | None = field(default=None, repr=False)

    def __post_init__(self):
        if self.low > self.high:
            raise ValueError("low is above high")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, r"query\.low: found {}; field required"),
        ({"low": "x", "high": "y"}, r"query\.low: found 'x'; input .*; query\.high: found 'y'; input"),
        ({"low": 11}, "low is above high"),
    ],
)
def test_the_rules_of_a_users_class(options, message):
    name = f"{Own.__module__}.{Own.__name__}"
    assert create("query", name, {"low": "3"}, {}) == Own(3)
    with pytest.raises(UserError, match=message):
        create("query", name, options, {})


def test_every_registered_name_makes_an_instance():
    for kind, entries, method in (("query", QUERIES, "select"), ("update", UPDATES, "client_loss")):
        for name in entries:
            assert callable(getattr(create(kind, name, {}, entries), method))


def test_checking_names_imports_nothing():
    with pytest.raises(UserError, match="update: found 'sgd'"):
        check_name("update", "sgd", UPDATES)


OWN = """
from abc import ABC, abstractmethod
from dataclasses import dataclass
import torch
from kafal_pipeline.query.base import ScoreQuery
torch.set_grad_enabled(False)
torch.set_default_dtype(torch.float64)

@dataclass(frozen=True)
class Typo(ScoreQuery):
    def score(self, pool, rng): ...

@dataclass(frozen=True)
class Lacks(ScoreQuery):
    pass

@dataclass(frozen=True)
class Fails(ScoreQuery):
    def scores(self, pool, rng): ...
    def __post_init__(self):
        raise SystemExit(0)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_classes.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("own_classes", None)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Typo", "which has no method `scores`. It has `score`; did you mean `scores`?"),
        ("Lacks", "which has no method `scores`."),
        ("Fails", "making 'own_classes.Fails' with its options failed: SystemExit(0)"),
    ],
)
def test_a_class_of_ones_own_that_cannot_be_made_is_reported(own, name, message):
    with pytest.raises(UserError) as raised:
        create("query", f"own_classes.{name}", {}, QUERIES)
    assert str(raised.value).endswith(message)


def test_what_a_module_changes_in_torch_while_it_is_imported_is_put_back(own):
    import torch

    with pytest.raises(UserError):
        create("query", "own_classes.Typo", {}, QUERIES)
    assert torch.is_grad_enabled()
    assert torch.get_default_dtype() == torch.float32
