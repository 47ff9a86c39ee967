"""People label at the sites: the trial waits, resumes, and has the bits of one whose oracle says the same."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import yaml
from over_sites import comparable

from kafal_pipeline.annotation.answers import Answer
from kafal_pipeline.common.errors import NotAllowed, UserError, Waiting
from kafal_pipeline.data import initial_pool, make_partition, open_store
from kafal_pipeline.federation.simulation import Simulation
from kafal_pipeline.federation.trial import Trial
from kafal_pipeline.federation.workers.pool import Workers
from kafal_pipeline.sites.at_server.clients import SitesAsClients
from kafal_pipeline.sites.at_server.members import gather
from kafal_pipeline.sites.at_site.people import desk_of
from kafal_pipeline.sites.at_site.service import SiteService
from kafal_pipeline.sites.at_site.site_file import Annotation, read_site
from kafal_pipeline.sites.command import main
from kafal_pipeline.sites.in_process import InProcess
from kafal_pipeline.sites.packets import Packet

CLASSES = [str(number) for number in range(10)]


@pytest.fixture(scope="module")
def wards(demo, tmp_path_factory):
    """The demo with no label in its training images, and the class of each file."""
    folder, truth = tmp_path_factory.mktemp("wards"), {}
    for place in ("east", "north", "west", "together"):
        images = folder / place / "images"
        (images / "unlabelled").mkdir(parents=True)
        source = demo / place if place == "together" else demo / place / "images"
        shutil.copytree(source / "test", images / "test")
        for path in sorted(source.glob("train/*/*.png")):
            truth[f"unlabelled/{path.name}"] = path.parent.name
            shutil.copy(path, images / "unlabelled")
        values = {"name": place, "images": "images", "classes": CLASSES, "min_count": 1}
        (folder / place / "site.yml").write_text(yaml.safe_dump(values | {"annotation": {"source": "people"}}))
    for split in ("train", "test"):
        rows = list(csv.reader((demo / "together" / f"{split}_clients.csv").open()))
        named = [[f"unlabelled/{file.partition('/')[2]}" if split == "train" else file, who] for file, who in rows[1:]]
        with (folder / "together" / "images" / f"{split}_clients.csv").open("w") as file:
            csv.writer(file).writerows([rows[0], *named])
    return folder, truth


@pytest.fixture
def places(wards, tmp_path):
    """The three sites, made for a message as often as it is asked for, with folders of the test."""

    def make(**annotation):
        found = [read_site(wards[0] / name / "site.yml") for name in ("east", "north", "west")]
        section = Annotation(source="people", **annotation)
        return [
            SiteService(site.model_copy(update={"work": str(tmp_path / site.name), "annotation": section}))
            for site in found
        ]

    return make


@pytest.fixture
def config(make_config, wards):
    def make(**changes):
        dataset = {"path": str(wards[0] / "together" / "images"), "classes": CLASSES}
        return make_config(annotation={"source": "people"}, dataset=dataset, **changes)

    return make


def people_answer(service, truth, limit=None, status="labelled"):
    """Have a site's people answer what is asked for, at most `limit` images of it; return how many these are."""
    images = service._work("trial").images
    desk = desk_of(service.site, "trial", images)
    missing = desk.requests()[-1].missing(desk.verdicts())[:limit]
    for item in missing:
        label = truth[str(images.train_files[item.row])] if status == "labelled" else None
        given = Answer(item.sample, status, label, "ann", "2026-01-01T00:00:00.000+00:00", "csv", 0, "q")
        desk.store.add(0, [given])
    return len(missing)


def wait_and_resume(config, places, truth, waits=lambda: None):
    """Run a trial to its end as the server does: each time that it waits, people answer and it resumes."""
    steps, first, model, queried, waited = [], 0, None, None, []
    members = None
    while first < config.cycles:
        services = places()  # as after a restart of all machines
        carrier = InProcess(services)
        members = members or gather(carrier, config)
        try:
            clients = SitesAsClients(config, carrier, members, "trial", cycle=max(0, first - 1))
            trial = Trial(config, members.images(), clients)
            if first:
                if queried is None:
                    queried = trial.query(first, model)
                    steps.append(("query", first, queried))
                clients.annotate(first)
        except Waiting as waiting:
            waited.append((str(waiting), [people_answer(service, truth) for service in services]))
            continue
        trained = trial.train(first, model)
        steps += [("train", first, trained), ("evaluate", first, trial.evaluate(trained, queried))]
        first, model, queried = first + 1, trained.global_state, None
    return steps, waited


@pytest.mark.parametrize(("query", "update"), [("ksas", "kcfu"), ("fairfal", "scaffold"), ("logo", "fedavg")])
def test_the_bits_of_an_oracle_that_says_the_same(query, update, config, places, wards, tmp_path):
    wanted = config(query=query, update=update)
    found, waited = wait_and_resume(wanted, places, wards[1])
    assert [counts for _, counts in waited] == [[20] * 3, [10] * 3]
    assert "cycle 0: site east for 20, site north for 20, site west for 20" in waited[0][0]

    folder = wards[0] / "together" / "images"
    images = open_store(wanted.dataset, folder, tmp_path / "store", folder)
    labels = np.array([int(wards[1][file]) for file in images.train_files])
    images = replace(images, train_labels=labels)
    split = make_partition(labels, wanted.partition, wanted.seed, images.train_clients)
    pool = initial_pool(split, labels, wanted.budget, wanted.cycles, wanted.seed)
    oracle = wanted.model_copy(update={"annotation": wanted.annotation.model_copy(update={"source": "oracle"})})
    with Workers(images, oracle) as workers:
        steps = list(Trial(oracle, images, Simulation(oracle, workers, pool)).run())
    expected = [step for step in steps if step.name != "annotate"]
    assert [name_and_cycle for *name_and_cycle, _ in found] == [[step.name, step.cycle] for step in expected]
    for (name, cycle, result), step in zip(found, expected, strict=True):
        assert comparable(replace(step, result=result)) == comparable(step), (name, cycle)


def test_both_sides_must_have_labels_by_people(config, make_config, places, services):
    with pytest.raises(UserError, match="annotation.source: found 'oracle' at the server, and 'people'"):
        gather(InProcess(places()), make_config())
    with pytest.raises(UserError, match="annotation.source: found 'people' at the server, and 'oracle'"):
        gather(InProcess(services), config())


def begun(config, carrier):
    """The clients of a trial after the people have given all first labels, and the model of its first cycle."""
    return SitesAsClients(config, carrier, gather(carrier, config), "trial")


def test_a_trial_goes_on_without_those_that_may_be_missing_and_takes_what_they_have(config, places, wards):
    services = places(complete=0.9)
    carrier, truth = InProcess(services), wards[1]
    strict, lenient = (config(federation={"missing_sites": allowed}) for allowed in (0, 1))
    with pytest.raises(Waiting, match="site east for 20, site north for 20, site west for 20"):
        begun(lenient, carrier)
    for service in services:
        people_answer(service, truth, 18)  # of 20: enough
    clients = begun(lenient, carrier)
    assert clients.labels == {0: 18, 1: 18, 2: 18}
    trial = Trial(lenient, clients.members.images(), clients)
    model = trial.train(0).global_state
    trial.query(1, model)
    with pytest.raises(Waiting, match="cycle 1: site east for 12, site north for 12, site west for 12"):
        clients.annotate(1)  # 10 new ones, and 2 that are open
    for service in services[1:]:
        people_answer(service, truth)
    people_answer(services[0], truth, 5)
    clients.config = strict
    with pytest.raises(Waiting, match=r"cycle 1: site east for 7\.\n.*\n.*may be missing: 0"):
        clients.annotate(1)
    clients.config = lenient
    clients.annotate(1)
    assert clients.bought(1).asked.sum() == 24
    rows = [row for row in trial.train(1, model).rows if row["client"] == 0]
    assert rows and all(row["labels"] == 23 for row in rows)
    people_answer(services[0], truth)  # too late for this cycle, whose pool stays
    clients.annotate(1)
    assert clients.labels == {0: 23, 1: 30, 2: 30}


def test_images_that_people_decline_leave_the_pool(config, places, wards):
    services = places(refill=0.5)
    carrier = InProcess(services)
    with pytest.raises(Waiting):
        begun(config(), carrier)
    assert [people_answer(service, wards[1], 4, status="unusable") for service in services] == [4] * 3
    with pytest.raises(Waiting, match="site east for 20, site north"):  # others are asked for in their place
        begun(config(), carrier)
    for service in services:
        people_answer(service, wards[1])
    clients = begun(config(), carrier)
    assert clients.labels == {0: 20, 1: 20, 2: 20}
    kept = services[0]._work("trial").kept
    assert kept.pool(0).size == clients.members.sizes[0] - 4


def test_no_message_has_what_people_say(config, places, wards):
    class Recording(InProcess):
        answers = []

        def ask(self, kind, requests, place):
            for name, answer in super().ask(kind, requests, place):
                self.answers.append((kind, answer))
                yield name, answer

    services = places()
    carrier = Recording(services)
    with pytest.raises(Waiting):
        begun(config(), carrier)
    said = [answer for kind, answer in carrier.answers if kind == "annotate"]
    assert said == [Packet({"labelled": 0, "missing": 20})] * 3
    for service in services:
        people_answer(service, wards[1])
    begun(config(), carrier)
    images = services[0]._work("trial").images
    for _, answer in carrier.answers:
        texts = "\0".join(map(str, answer.values.values()))
        assert not any(str(secret) in texts for secret in (*images.train_ids, *images.train_files, "ann"))


def test_a_site_without_labels_is_not_trained_at(config, places):
    services = places()
    with pytest.raises(Waiting):
        begun(config(), InProcess(services))
    for kind, values in (("train", {"cycle": 0, "round": 0}), ("select", {"cycle": 1})):
        groups = {"model": {}, "server": {}} if kind == "train" else {"model": {}}
        with pytest.raises(NotAllowed, match="waits for its first labels"):
            services[0].answer(kind, Packet({"run": "trial", **values}, groups))


def test_commands_of_a_site(config, places, wards, tmp_path, capsys):
    services, path = places(), tmp_path / "site.yml"
    site = services[0].site
    path.write_text(yaml.safe_dump(json.loads(site.model_dump_json(exclude={"server", "test_share"}))))
    assert main(["status", str(path)]) == 1
    assert "nothing is asked yet" in capsys.readouterr().err
    with pytest.raises(Waiting):
        begun(config(), InProcess(services))
    assert main(["status", str(path)]) == 0
    assert "client 0 (east)      0  training     20" in capsys.readouterr().out
    assert main(["status", str(path), "--run", "trail"]) == 1
    assert "Did you mean 'trial'?" in capsys.readouterr().err
    (table,) = tmp_path.glob("east/annotation/requests/trial/cycle_00/client_000/to_label.csv")
    files = dict(
        zip(services[0]._work("trial").images.train_ids, services[0]._work("trial").images.train_files, strict=True)
    )
    with table.open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row |= {"label": wards[1][str(files[row["sample"]])], "annotator": "ann"}
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    assert main(["import", str(path), str(table)]) == 0
    said = capsys.readouterr().out
    assert "20 answers from a table: 20 new" in said and "Enough is labelled here" in said
    assert main(["annotate", str(path)]) == 1  # nothing is left for the page
    assert "all 20 images are answered" in capsys.readouterr().err
    assert services[0].answer("annotate", Packet({"run": "trial", "cycle": 0})).values == {"labelled": 20, "missing": 0}


def test_what_is_wrong_with_an_answer_stays_at_the_site(config, places, wards, caplog):
    services = places()
    with pytest.raises(Waiting):
        begun(config(), InProcess(services))
    for service in services:
        people_answer(service, wards[1])
    desk = desk_of(services[0].site, "trial", services[0]._work("trial").images)
    sample = desk.requests()[0].samples[0].sample
    desk.store.add(0, [Answer(sample, "labelled", "eleven", "ann", "2026-02-01T00:00:00.000+00:00", "csv", 0, "q")])
    with pytest.raises(UserError, match="site east: something is wrong with what its people") as found:
        begun(config(), InProcess(services))
    assert "eleven" not in str(found.value) and sample not in str(found.value)
    assert f"image {sample} is labelled 'eleven'" in caplog.text


def test_test_images_are_set_aside_and_labelled_first(config, places, wards, tmp_path):
    sites, truth = [], wards[1]
    for service in places():
        folder = tmp_path / "without_tests" / service.site.name
        shutil.copytree(wards[0] / service.site.name / "images" / "unlabelled", folder / "unlabelled")
        sites.append(service.site.model_copy(update={"images": str(folder), "test_share": 0.1}))
    services = [SiteService(site) for site in sites]
    wanted = config(cycles=1)
    with pytest.raises(Waiting) as found:
        begun(wanted, InProcess(services))
    for service in services:
        images = service._work("trial").images
        desk = desk_of(service.site, "trial", images)
        (request,) = desk.requests()
        parts = [item.part for item in request.samples]
        tests = len(images.test_labels)
        assert parts == ["test"] * tests + ["train"] * 20
        assert f"site {service.site.name} for {tests + 20}" in str(found.value)
        for item in request.samples[1:]:
            file = (images.test_files if item.part == "test" else images.train_files)[item.row]
            given = Answer(
                item.sample, "labelled", truth[str(file)], "ann", "2026-01-01T00:00:00.000+00:00", "csv", 0, "q"
            )
            desk.store.add(0, [given])
        declined = request.samples[0].sample
        desk.store.add(0, [Answer(declined, "unusable", None, "ann", "2026-01-01T00:00:00.000+00:00", "csv", 0, "q")])
    clients = begun(wanted, InProcess(services))
    trial = Trial(wanted, clients.members.images(), clients)
    metrics = trial.evaluate(trial.train(0))
    tests = [len(service._work("trial").images.test_labels) - 1 for service in services]
    assert [row["images"] for row in metrics["per_client"]] == tests


def test_check_counts_images_without_a_label(wards, capsys):
    main(["check", str(wards[0] / "east" / "site.yml")])
    said = capsys.readouterr().out
    count = len(list((wards[0] / "east" / "images" / "unlabelled").iterdir()))
    assert f"annotation: people label; {count} images have no label in the data" in said
    assert "classes: 0 0, 1 0" in said
