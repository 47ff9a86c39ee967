"""What a site refuses, and what it does when it is asked again."""

from __future__ import annotations

import json

import numpy as np
import pytest
from over_sites import assert_same, over_sites

from kafal_pipeline.common.errors import NotAllowed, UserError
from kafal_pipeline.sites.at_server.members import gather
from kafal_pipeline.sites.at_site.service import SiteService, sent
from kafal_pipeline.sites.in_process import InProcess
from kafal_pipeline.sites.packets import Missing, Packet


class EachAnew(InProcess):
    """Makes a site anew for every message, as Flower's own processes do, and asks it twice."""

    def ask(self, kind, requests, place):
        for name, request in requests.items():
            first = SiteService(self._sites[name].site).answer(kind, request)
            again = SiteService(self._sites[name].site).answer(kind, request)
            for group, arrays in first.arrays.items():
                assert {key: array.tobytes() for key, array in arrays.items()} == {
                    key: array.tobytes() for key, array in again.arrays[group].items()
                }
            yield name, again


@pytest.mark.parametrize(("query", "update"), [("fairfal", "scaffold"), ("ksas", "kcfu")])
def test_a_site_that_is_asked_again_gives_the_same_answer(query, update, make_config, services, tmp_path):
    config = make_config(query=query, update=update)
    found = over_sites(config, EachAnew(services))
    for service in services:
        service.site = service.site.model_copy(update={"work": str(tmp_path / "other" / service.site.name)})
    assert_same(found, over_sites(config, InProcess(services)))


def test_a_stale_round_is_refused(make_config, services):
    config = make_config(federation={"rounds": 3, "participation": 1.0})
    over_sites(config, InProcess(services))
    work = services[0]._open[1]
    model = work.kept.store["broadcast_00002"]
    for cycle, round_, said in ((0, 0, "cycle 0 is over"), (1, 0, "round 0 of cycle 1 is over")):
        request = Packet({"run": "trial", "cycle": cycle, "round": round_}, {"model": model, "server": {}})
        with pytest.raises(NotAllowed, match=said):
            services[0].answer("train", request)
    with pytest.raises(NotAllowed, match="the query of cycle 1 is over"):
        services[0].answer("select", Packet({"run": "trial", "cycle": 1}, {"model": model}))


def start(config, members, **changes):
    values = {"config": json.dumps(json.loads(sent(config)) | changes), "client": 0, "classes": list(members.classes)}
    return Packet({"run": "trial", **values, "mean": members.mean, "std": members.std})


def test_a_trial_with_other_parameters_is_another_trial(make_config, services):
    members = gather(InProcess(services), make_config())
    services[0].answer("start", start(make_config(), members))
    services[0].answer("start", start(make_config(), members))
    with pytest.raises(NotAllowed, match="other parameters"):
        services[0].answer("start", start(make_config(seed=4), members))
    with pytest.raises(NotAllowed, match="has not been started"):
        services[0].answer("annotate", Packet({"run": "other", "cycle": 0}))
    with pytest.raises(NotAllowed, match="has the name"):
        services[0].answer("annotate", Packet({"run": "../../other", "cycle": 0}))


@pytest.mark.parametrize(
    "changes",
    [
        {"query": {"name": "os.path.Query"}},
        {"update": {"name": "somebody.Update"}},
        {"query": {"score": "somebody.Score", "quota": "none"}},
        {"model": {"name": "somebody.Net"}},
    ],
)
def test_a_class_outside_the_package_is_refused_unless_the_site_allows_it(changes, make_config, services):
    members = gather(InProcess(services), make_config())
    with pytest.raises(NotAllowed, match="allow.classes"):
        services[0].answer("start", start(make_config(), members, **changes))


def test_sites_of_other_classes_versions_or_number_do_not_go_together(make_config, services, monkeypatch):
    with pytest.raises(UserError, match=r"partition.clients: found 2, .* east, north, west"):
        gather(InProcess(services), make_config(partition={"clients": 2}))
    site = services[1].site
    services[1].site = site.model_copy(update={"classes": [*site.classes[1:], site.classes[0]]})
    with pytest.raises(UserError, match="site north: found the classes"):
        gather(InProcess(services), make_config())
    monkeypatch.setattr("kafal_pipeline.sites.at_server.members.package_version", lambda: "0.0.1")
    with pytest.raises(UserError, match="site east: this site runs version"):
        gather(InProcess(services), make_config())


class Spoiled(InProcess):
    """Changes what one site answers in round 1 of cycle 0."""

    def __init__(self, services, change):
        super().__init__(services)
        self.change = change

    def ask(self, kind, requests, place):
        for name, answer in super().ask(kind, requests, place):
            spoil = (kind, name, place) == ("train", "north", "cycle 0, round 1")
            yield name, self.change(answer) if spoil else answer


def with_model(change):
    def changed(answer):
        model = {name: array.copy() for name, array in answer.arrays["model"].items()}
        change(model)
        return Packet(answer.values, {**answer.arrays, "model": model})

    return changed


def nan(model):
    next(iter(model.values())).flat[0] = np.nan


def shape(model):
    name = next(iter(model))
    model[name] = model[name].ravel()


SPOILED = [
    (with_model(nan), "the model is not finite"),
    (with_model(shape), "of shape"),
    (with_model(dict.clear), "its model has nothing as"),
    (lambda answer: Packet({**answer.values, "round": 0}, answer.arrays), "the answer is of cycle 0, round 0"),
    (lambda answer: Packet({**answer.values, "labels": 10**6}, answer.arrays), "it trained on 1000000 labels"),
    (lambda answer: Packet({**answer.values, "labels": 20.5}, answer.arrays), "allowed: whole"),
    (lambda answer: Packet({**answer.values, "sample": 3}, answer.arrays), "'sample', which is not listed"),
    (lambda answer: Missing("it did not answer within 5 s"), "it did not answer within 5 s"),
]


@pytest.mark.parametrize(("change", "said"), SPOILED)
def test_an_answer_that_cannot_be_used_ends_the_round_with_the_reason(change, said, make_config, services):
    with pytest.raises(UserError, match=said) as found:
        over_sites(make_config(), Spoiled(services, change))
    assert "cycle 0, round 1" in str(found.value)


def test_a_round_goes_on_without_a_silent_site_where_it_may(make_config, services):
    config = make_config(federation={"missing_sites": 1})
    steps = over_sites(config, Spoiled(services, lambda _: Missing("it is not connected")))
    trained = next(step.result for step in steps if step.name == "train")
    assert [row["client"] for row in trained.rows if row["failed"]] == [1]
    assert steps[-1].result["labels"] == 90


class Away(InProcess):
    """Has no site `north` for the query and the labels of cycle 1; or loses its answers alone."""

    def __init__(self, services, *, answers_alone):
        super().__init__(services)
        self.answers_alone = answers_alone

    def ask(self, kind, requests, place):
        away = {"north"} if place in ("cycle 1, summary", "cycle 1, query", "cycle 1, labels") else set()
        asked = {name: request for name, request in requests.items() if self.answers_alone or name not in away}
        for name, answer in super().ask(kind, asked, place):
            if name not in away:
                yield name, answer
        for name in away & requests.keys():
            yield name, Missing("it is not connected")


@pytest.mark.parametrize(("answers_alone", "labels"), [(False, 80), (True, 90)])
def test_a_site_that_was_away_when_all_chose_comes_back(answers_alone, labels, make_config, services):
    config = make_config(query="fairfal", federation={"missing_sites": 1})
    steps = over_sites(config, Away(services, answers_alone=answers_alone))
    assert steps[-1].result["labels"] == labels
    assert {row["client"] for row in steps[-2].result.rows if not row["failed"]} == {0, 1, 2}
