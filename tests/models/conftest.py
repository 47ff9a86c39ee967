from __future__ import annotations

import pytest

from kafal_pipeline.common.threads import single_thread


@pytest.fixture(autouse=True)
def one_thread():
    """As training computes: the images are too small for more."""
    with single_thread():
        yield
