from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kafal_pipeline.update.base import weighted_average


def state(seed):
    generator = torch.Generator().manual_seed(seed)
    return {
        "weight": torch.randn(3, 2, generator=generator),
        "bn.running_mean": torch.randn(2, generator=generator),
        "bn.num_batches_tracked": torch.tensor(seed),
    }


def test_weights_are_numbers_of_labels():
    result = weighted_average(state(0), [state(1), state(2)], [30.0, 10.0])
    for name in ("weight", "bn.running_mean"):
        torch.testing.assert_close(result[name], 0.75 * state(1)[name] + 0.25 * state(2)[name])


def test_integer_buffers_stay_the_global_models():
    result = weighted_average(state(5), [state(1), state(2)], [1.0, 2.0])
    assert result["bn.num_batches_tracked"].dtype == torch.int64
    assert int(result["bn.num_batches_tracked"]) == 5


@settings(deadline=None)
@given(st.lists(st.floats(0.1, 1e4), min_size=1, max_size=7))
def test_equal_models_average_to_themselves(weights):
    result = weighted_average(state(0), [state(3)] * len(weights), weights)
    assert torch.equal(result["weight"], state(3)["weight"])


def test_nobody_with_labels_leaves_a_copy_of_the_global_model():
    start = state(0)
    result = weighted_average(start, [state(1)], [0.0])
    assert torch.equal(result["weight"], start["weight"])
    assert result["weight"] is not start["weight"]
