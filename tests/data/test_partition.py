"""Partitions: disjoint, complete, reproducible, and skewed as they say."""

import json
import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kafal_pipeline.common.errors import UserError
from kafal_pipeline.config import LongTailConfig, PartitionConfig
from kafal_pipeline.data import check_split, format_split, make_partition, split_table
from kafal_pipeline.data.partition import METHODS
from kafal_pipeline.data.partition.long_tail import long_tail_indices


def balanced_labels(classes, per_class):
    return np.tile(np.arange(classes), per_class)


def as_lists(split):
    return [items.tolist() for items in split]


@st.composite
def problems(draw):
    """Labels (every class present, sizes free), and parameters that can be met."""
    classes = draw(st.integers(2, 6))
    sizes = draw(st.lists(st.integers(20, 60), min_size=classes, max_size=classes))
    labels = np.random.default_rng(draw(st.integers(0, 9))).permutation(np.repeat(np.arange(classes), sizes))
    config = PartitionConfig(
        method=draw(st.sampled_from(sorted(METHODS))),
        clients=draw(st.integers(classes, 8)),
        alpha=draw(st.sampled_from([0.5, 1.0, 100.0])),
        classes_per_client=draw(st.integers(1, classes)),
        min_size=1,
    )
    return labels, config, draw(st.integers(0, 2**32 - 1))


@settings(deadline=None, max_examples=60)
@given(problems())
def test_every_partition_is_disjoint_complete_sorted_and_reproducible(problem):
    labels, config, seed = problem
    split = make_partition(labels, config, seed)
    assert len(split) == config.clients
    assert all(items.dtype == np.int64 and (np.diff(items) > 0).all() for items in split)
    np.testing.assert_array_equal(np.sort(np.concatenate(split)), np.arange(len(labels)))
    np.random.default_rng().random()
    assert as_lists(make_partition(labels, config, seed)) == as_lists(split)
    others = (as_lists(make_partition(labels, config, seed + step)) for step in range(1, 30))
    assert any(other != as_lists(split) for other in others)  # two clients and two classes have only two splits


@settings(deadline=None, max_examples=40)
@given(problems(), st.integers(1, 20), st.sampled_from(["exponential", "step"]), st.integers(3, 30))
def test_cuts_take_away_and_change_nothing_else(problem, ratio, profile, limit):
    labels, config, seed = problem
    tail = LongTailConfig(imbalance_ratio=ratio, profile=profile)
    if config.method == "shards":  # the rarest class must reach all of its clients
        config = config.model_copy(update={"method": "iid"})
    cut = config.model_copy(update={"long_tail": tail})
    split = make_partition(labels, cut, seed)
    kept = np.concatenate(split)
    assert len(np.unique(kept)) == len(kept)
    assert set(labels[kept]) == set(labels)
    subset = make_partition(labels, cut.model_copy(update={"samples_per_client": limit}), seed)
    for whole, part in zip(split, subset, strict=True):
        assert len(part) == min(limit, len(whole))
        assert set(part) <= set(whole)
        assert (np.diff(part) > 0).all()


@pytest.mark.parametrize("method", ["iid", "dirichlet_balanced"])
def test_equal_sizes(method):
    labels = balanced_labels(10, 101)
    split = make_partition(labels, PartitionConfig(method=method, clients=7, alpha=0.1), 3)
    assert {len(items) for items in split} == {144, 145}


@pytest.mark.parametrize("method", ["dirichlet", "dirichlet_balanced"])
def test_alpha_rules_how_much_the_classes_differ(method):
    labels = balanced_labels(10, 200)

    def largest_share(alpha):
        split = make_partition(labels, PartitionConfig(method=method, clients=5, alpha=alpha), 0)
        return np.mean([np.bincount(labels[items]).max() / len(items) for items in split])

    assert largest_share(0.1) > 0.3
    assert largest_share(100.0) < 0.15


@pytest.mark.parametrize("method", ["dirichlet", "quantity_skew"])
def test_minimum_size_is_reached_or_refused(method):
    labels = balanced_labels(5, 100)
    config = PartitionConfig(method=method, clients=5, alpha=0.5, min_size=40)
    assert min(map(len, make_partition(labels, config, 0))) >= 40
    with pytest.raises(UserError, match=r"partition\.min_size: 120 samples.*Lower partition\.min_size"):
        make_partition(labels, config.model_copy(update={"min_size": 120}), 0)


@pytest.mark.parametrize("alpha", [1e-6, 1e6])
@pytest.mark.parametrize("method", ["dirichlet_balanced", "dirichlet"])
def test_extreme_alpha(method, alpha):
    labels = balanced_labels(20, 10)
    split = make_partition(labels, PartitionConfig(method=method, clients=4, alpha=alpha), 0)
    assert sum(map(len, split)) == 200


def test_quantity_skew_skews_sizes_and_not_classes():
    labels = balanced_labels(4, 2000)
    split = make_partition(labels, PartitionConfig(method="quantity_skew", clients=4, alpha=0.5, min_size=100), 1)
    sizes = [len(items) for items in split]
    assert max(sizes) > 2 * min(sizes)
    for items in split:
        np.testing.assert_allclose(np.bincount(labels[items]) / len(items), 0.25, atol=0.12)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 10), st.integers(10, 25), st.integers(0, 1000))
def test_shards_give_each_client_its_number_of_classes(classes_per_client, clients, seed):
    labels = balanced_labels(10, 60)
    config = PartitionConfig(method="shards", clients=clients, classes_per_client=classes_per_client)
    split = make_partition(labels, config, seed)
    held = [set(labels[items]) for items in split]
    assert {len(classes) for classes in held} == {classes_per_client}
    holders = np.bincount([label for classes in held for label in classes])
    assert holders.max() - holders.min() <= 1


def test_shards_that_cannot_be():
    labels = balanced_labels(10, 10)
    with pytest.raises(UserError, match="classes_per_client: found 11; the data set has 10"):
        make_partition(labels, PartitionConfig(method="shards", classes_per_client=11), 0)
    with pytest.raises(UserError, match="4 clients with 2 classes each cannot hold all 10"):
        make_partition(labels, PartitionConfig(method="shards", clients=4, classes_per_client=2), 0)


def test_more_clients_than_samples():
    with pytest.raises(UserError, match=r"partition\.clients: found 9, but there are 6"):
        make_partition(balanced_labels(2, 3), PartitionConfig(method="iid", clients=9), 0)


@pytest.mark.parametrize(
    ("profile", "expected"),
    [("exponential", [500, 358, 256, 184, 132, 94, 67, 48, 34, 25]), ("step", [500] * 5 + [25] * 5)],
)
def test_long_tail_counts(profile, expected):
    labels = np.random.default_rng(0).permutation(balanced_labels(10, 500))
    tail = LongTailConfig(imbalance_ratio=20, profile=profile)
    kept = long_tail_indices(labels, tail, np.random.default_rng(1))
    assert np.bincount(labels[kept]).tolist() == expected
    config = PartitionConfig(method="iid", clients=4, long_tail=tail)
    assert sum(map(len, make_partition(labels, config, 0))) == sum(expected)


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return PartitionConfig(method="file", path=path.name, clients=2)


def test_file_keeps_its_order(tmp_path):
    lists = [[3, 0, 4], [5, 1, 2]]
    config = write(tmp_path / "split.json", lists)
    assert as_lists(make_partition(np.array([0, 1, 0, 1, 0, 1]), config, 0, base=tmp_path)) == lists


def test_file_with_cuts_keeps_the_order_of_what_remains(tmp_path):
    rng = np.random.default_rng(0)
    labels = balanced_labels(2, 50)
    halves = rng.permutation(100).reshape(2, 50).tolist()
    config = write(tmp_path / "split.json", halves).model_copy(
        update={"long_tail": LongTailConfig(imbalance_ratio=5), "samples_per_client": 20}
    )
    split = as_lists(make_partition(labels, config, 0, base=tmp_path))
    for part, half in zip(split, halves, strict=True):
        assert len(part) == 20
        assert part == [index for index in half if index in set(part)]
    assert np.bincount(labels[np.concatenate(split)])[1] <= 10


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[[0, 1], [2", "cannot be read as JSON"),
        ("[" * 100_000, "cannot be read as JSON"),
        ({"0": [1]}, "must be a list of lists"),
        ([], "must be a list of lists"),
        ([[0, 1, 2], 3], "client 1: found 3; it must be a list"),
        ([[0, 1, 2], "345"], "client 1: found '345'; it must be a list"),
        ([[0, 1, 2], [3, 4, 1, 5]], "the sample 1 belongs to client 0 and to client 1"),
        ([[0, 1, 1, 2], [3, 4, 5]], "client 0 holds the sample 1 twice"),
        ([[0, 1], [3, 5]], "2 of 6 training samples belong to no client, the first is 2"),
        ([[0, 1, 2], [3, 4, 6]], "client 1: found 6; allowed: integers from 0 to 5"),
        ([[0, 1, 2], [3, 4, -1]], "client 1: found -1"),
        ([[0, 1, 2], [3, 4, 10**30]], "client 1: found 1000"),
        ([[0, 1, 2], [3, 4, 5.0]], "client 1: found 5.0"),
        ([[0, True, 2], [3, 4, 5]], "client 0: found True"),
        ([[0, 1, 2, 3, 4, 5], []], "client 1 has no samples"),
        ([[0, 1], [2, 3], [4, 5]], r"has 3 clients\. Set partition\.clients to 3"),
    ],
)
def test_bad_file(tmp_path, content, message):
    config = write(tmp_path / "split.json", content)
    with pytest.raises(UserError, match=message) as error:
        make_partition(balanced_labels(2, 3), config, 0, base=tmp_path)
    assert "split.json" in str(error.value)


def test_absent_file(tmp_path, caplog):
    labels = balanced_labels(2, 30)
    config = PartitionConfig(method="file", path="nowhere.json", clients=3)
    with pytest.raises(UserError, match=r"no file .*nowhere\.json.*partition\.when_absent.*dirichlet"):
        make_partition(labels, config, 0, base=tmp_path)
    with caplog.at_level(logging.WARNING):
        split = make_partition(labels, config.model_copy(update={"when_absent": "iid"}), 0, base=tmp_path)
    assert "nowhere.json" in caplog.text
    assert as_lists(split) == as_lists(make_partition(labels, PartitionConfig(method="iid", clients=3), 0))


def test_natural():
    labels = balanced_labels(2, 4)
    clients = np.array([7, 3, 7, 3, 9, 9, 9, 3])
    config = PartitionConfig(method="natural", clients=3)
    assert as_lists(make_partition(labels, config, 0, clients)) == [[1, 3, 7], [0, 2], [4, 5, 6]]
    with pytest.raises(UserError, match="does not say which client"):
        make_partition(labels, config, 0)
    with pytest.raises(UserError, match=r"Set partition\.clients to 3"):
        make_partition(labels, PartitionConfig(method="natural", clients=4), 0, clients)


def test_check_against_what_was_left_in():
    check_split([[0], [3]], 4, np.array([0, 3]))
    with pytest.raises(UserError, match="client 0 holds the sample 1, which was left out before"):
        check_split([[0, 1], [3]], 4, np.array([0, 3]))
    with pytest.raises(UserError, match="1 of 2 training samples"):
        check_split([[0]], 4, np.array([0, 3]))


def test_published_split_comes_back_unchanged(published_split):
    lists = json.loads(published_split.read_text())
    config = PartitionConfig(method="file", path=published_split.name, clients=10)
    split = make_partition(np.zeros(50_000, dtype=np.int64), config, 0, base=published_split.parent)
    assert as_lists(split) == lists
    assert json.loads(format_split(split)) == lists
    assert format_split(split).count("\n") == 9


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"method": "dirichlet"},
            r"partition\.method: found 'dirichlet'.*10 of 40 .*natural, iid, quantity_skew, file",
        ),
        ({"method": "dirichlet_balanced"}, "partition.method: found 'dirichlet_balanced'"),
        ({"method": "shards"}, "partition.method: found 'shards'"),
        (
            {"method": "file", "path": "no.json", "when_absent": "shards"},
            r"when_absent: found 's.*: iid, quantity_skew\.",
        ),
        ({"method": "iid", "long_tail": {"imbalance_ratio": 2}}, "partition.long_tail: .*10 of 40"),
    ],
)
def test_what_needs_labels_is_refused_where_some_are_missing(tmp_path, config, message):
    labels = np.arange(40) % 4 - 1
    with pytest.raises(UserError, match=message):
        make_partition(labels, PartitionConfig(clients=2, **config), seed=0, base=tmp_path)


def test_what_needs_none_goes_without_labels(tmp_path):
    none, labels, clients = np.full(40, -1), np.arange(40) % 4, np.arange(40) % 2
    (tmp_path / "split.json").write_text(json.dumps([list(range(20)), list(range(20, 40))]))
    for method in ("iid", "quantity_skew", "natural", "file"):
        config = PartitionConfig(method=method, clients=2, path=str(tmp_path / "split.json"))
        without, with_labels = (as_lists(make_partition(known, config, 0, clients)) for known in (none, labels))
        assert without == with_labels
    table = split_table([[0, 1, 2], [3]], np.array([1, -1, 1, -1]), 2)
    assert table["count"].tolist() == [0, 2, 0, 0]


def test_table_has_all_pairs():
    table = split_table([[0, 1], [2, 3, 4]], np.array([0, 0, 1, 1, 3]), 4)
    assert list(table.columns) == ["client", "class", "count"]
    assert table["client"].tolist() == [0] * 4 + [1] * 4
    assert table["class"].tolist() == [0, 1, 2, 3] * 2
    assert table["count"].tolist() == [2, 0, 0, 0, 0, 2, 0, 1]
    assert (table.dtypes == np.int64).all()


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("iid", [[3, 4, 7, 11], [0, 6, 8, 10], [1, 2, 5, 9]]),
        ("dirichlet", [[0, 1, 4, 7, 8, 10], [2, 3, 6, 9, 11], [5]]),
        ("dirichlet_balanced", [[1, 7, 8, 10], [4, 6, 9, 11], [0, 2, 3, 5]]),
        ("shards", [[0, 3, 6, 9], [2, 5, 8, 11], [1, 4, 7, 10]]),
        ("quantity_skew", [[0, 1], [2, 3, 4, 5, 6, 7, 8, 9, 11], [10]]),
    ],
)
def test_a_seed_means_the_same_split_for_ever(method, expected):
    """Pinned, so that a change of the draws shows."""
    config = PartitionConfig(method=method, clients=3, classes_per_client=1, alpha=1.0)
    assert as_lists(make_partition(balanced_labels(3, 4), config, 0)) == expected
