"""Recommenders, one file a model: arrays in, ranked items out; and the shape that they learn from."""

from thinslice.models.interactions import from_columns, is_order_index
from thinslice.models.newest import Newest
from thinslice.models.popular import Popular
from thinslice.models.session_knn import SessionKNN
from thinslice.models.vocabulary import Vocabulary

MODELS: dict[str, type[Popular] | type[Newest] | type[SessionKNN]] = {
    model.name: model for model in (Popular, Newest, SessionKNN)
}
"""Name → class, the simplest first and the default pipeline last."""

__all__ = ["MODELS", "Newest", "Popular", "SessionKNN", "Vocabulary", "from_columns", "is_order_index"]
