"""Of known people the network sees what the trees see: it is added only where the history helps, and to nobody else."""

import numpy as np
import pytest

from thinslice.models import NeuralRanker, from_columns
from thinslice.models.neural_ranker_network import Network
from thinslice.models.people_ranking import NAMES

DAY_S = 86_400.0
SETTINGS = {"rng": 0, "least_questions": 100, "candidates": 30, "hidden": 16, "tune_cpu_s_per_million": 5}


@pytest.fixture(scope="module")
def log():
    """Each week everybody looks at something that all look at, then takes one of four things that are only theirs."""
    draw = np.random.default_rng(0)
    rows = [
        (f"p{person}-{week}", item, 1.7e9 + DAY_S * (7 * week + person % 7) + place, f"p{person}")
        for week in range(20) for person in range(60)
        for place, item in enumerate((f"any-{draw.integers(40)}",
                                      f"own-{person}-{draw.choice(4, p=(0.55, 0.25, 0.15, 0.05))}"))
    ]  # fmt: skip
    session, item, time, user = zip(*rows, strict=True)
    return from_columns(session, item, time, users=user)


@pytest.fixture(scope="module")
def model(log):
    return NeuralRanker.fit(log, **SETTINGS)


def test_the_history_is_kept_because_it_foresees_more(model):
    told = model.evidence["known_people"]["exam"]
    assert told["session and history"]["mrr"] > told["session"]["mrr"] + 0.02
    added = model._known.added
    assert isinstance(added, Network)
    assert added.features == len(NAMES)


def test_somebody_known_is_shown_own_things_and_a_stranger_what_the_session_alone_gives(log, model):
    assert model.knows_users
    mine = model.recommend(["any-3"], 6, user_id="p7")
    assert mine.item_ids[0].startswith("own-7-")
    assert len(model.recommend([], 5, user_id="p7").item_ids) == 5
    alone = NeuralRanker.fit(log._replace(user=None, user_ids=()), **SETTINGS)
    for session in (["any-3"], ["own-7-2", "any-5"], [], ["never seen"]):
        assert (
            model.recommend(session, 9, user_id="nobody") == alone.recommend(session, 9) == model.recommend(session, 9)
        )


def test_a_score_is_the_sum_of_its_terms_and_stays_what_it_is_on_the_disk_and_freshened(log, model):
    again = NeuralRanker.from_arrays(model.arrays())
    fresh = model.refit(log)
    for session in ([], ["any-3"], ["own-7-0", "any-5"]):
        found = model.recommend(session, 8, user_id="p7")
        assert again.recommend(session, 8, user_id="p7") == found == fresh.recommend(session, 8, user_id="p7")
        for reason, score in zip(model.explain_all(session, found.item_ids, user_id="p7"), found.scores, strict=True):
            assert reason.score == pytest.approx(score)
            assert sum(reason.terms.values()) == pytest.approx(score, rel=1e-6, abs=1e-9)
    assert any(cause and cause.startswith("own-7-") for cause in model.causes([], found.item_ids, user_id="p7"))


def test_the_same_clicks_give_the_same_bytes(log, model):
    twin = NeuralRanker.fit(log, **SETTINGS)
    assert all(array.tobytes() == twin.arrays()[name].tobytes() for name, array in model.arrays().items())
