"""Every model keeps the promises of check_model, and a catalog without any click can be served."""

from datetime import UTC, datetime

import numpy as np
import pytest

from thinslice.errors import BadInput
from thinslice.models import MODELS, Newest, Popular, SessionKNN, from_columns
from thinslice.records import Item
from thinslice.testing import check_model

NOW = datetime(2026, 11, 1, tzinfo=UTC)
CATALOG = [Item(tenant="shop", item_id=f"item-{number:02d}", updated_at=NOW) for number in range(40)]


@pytest.mark.parametrize(
    ("kind", "personal", "items"),
    [(Popular, False, None), (Newest, False, None), (Newest, False, CATALOG), (SessionKNN, True, CATALOG)],
)
def test_a_model_keeps_what_every_model_promises(kind, personal, items):
    check_model(kind, items=items, personal=personal)


def test_the_simplest_stands_first_and_the_default_pipeline_last():
    assert list(MODELS) == ["popular", "newest", "session-knn"]


@pytest.mark.parametrize("kind", MODELS.values())
def test_a_mask_of_the_wrong_length_is_refused_with_both_lengths(kind):
    model = kind.fit(from_columns(["s", "s"], ["a", "b"], [1, 2]))
    with pytest.raises(BadInput, match=r"2 values, one an item, got 3"):
        model.recommend(["a"], 2, allowed=np.ones(3, dtype=bool))
