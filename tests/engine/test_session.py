"""What a session is built from."""

import numpy as np

from pose3d.data.store import open_store
from pose3d.engine.config import load_config
from pose3d.engine.session import build_session


def test_a_thinned_validation_keeps_what_a_stride_would_lose(small_overrides, write_dots, tmp_path):
    """Actions alternate from record to record, so that every second record is one action alone."""
    store = write_dots(tmp_path / "store", num_train=4, num_test=32)
    overrides = [*small_overrides, "evaluate.validation_every=2"]
    session = build_session(
        load_config(overrides=overrides), open_store(store), run=tmp_path / "run"
    )
    chosen = session.validation.indices
    assert len(chosen) == 16
    assert np.all(np.diff(chosen) > 0)
    assert set(open_store(store).records.action[chosen]) == {"Eating", "Walking"}
    again = build_session(
        load_config(overrides=overrides), open_store(store), run=tmp_path / "other"
    )
    assert np.array_equal(again.validation.indices, chosen)
