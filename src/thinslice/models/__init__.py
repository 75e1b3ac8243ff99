"""Recommenders, one file a model: arrays in, ranked items out; and the shape that they learn from."""

from typing import Any

from thinslice.models.bought_together import BoughtTogether
from thinslice.models.buy_again import BuyAgain
from thinslice.models.content import Content
from thinslice.models.ease import EASE
from thinslice.models.implicit_als import ImplicitALS
from thinslice.models.implicit_bpr import ImplicitBPR
from thinslice.models.implicit_neighbors import ImplicitCosine, ImplicitTfidf
from thinslice.models.interactions import from_columns, goes_together, is_order_index
from thinslice.models.markov import Markov
from thinslice.models.neural_ranker import NeuralRanker
from thinslice.models.newest import Newest
from thinslice.models.people_history import UserHistory
from thinslice.models.popular import Popular
from thinslice.models.session_knn import SessionKNN
from thinslice.models.session_ranker import SessionRanker
from thinslice.models.session_transformer import SessionTransformer
from thinslice.models.trending import Trending
from thinslice.models.user_cf import UserCF
from thinslice.models.vocabulary import Vocabulary

MODELS: dict[str, type[Any]] = {
    model.name: model
    for model in (
        Popular, Newest, Trending, BuyAgain, UserHistory, BoughtTogether, Content, Markov, ImplicitCosine,
        ImplicitTfidf, EASE, ImplicitALS, ImplicitBPR, SessionTransformer, SessionKNN, UserCF, NeuralRanker,
        SessionRanker,
    )
}  # fmt: skip
"""Name → class, the simplest first and the default pipeline last."""

__all__ = [
    "EASE", "MODELS", "BoughtTogether", "BuyAgain", "Content", "ImplicitALS", "ImplicitBPR", "ImplicitCosine",
    "ImplicitTfidf", "Markov", "NeuralRanker", "Newest", "Popular", "SessionKNN", "SessionRanker", "SessionTransformer",
    "Trending", "UserCF", "UserHistory", "Vocabulary", "from_columns", "goes_together", "is_order_index",
]  # fmt: skip
