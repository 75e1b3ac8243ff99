"""check_model catches models that break a promise, and says which."""

import numpy as np
import pytest

from thinslice.models import Popular, SessionKNN
from thinslice.records import Reason, ScoredItems
from thinslice.testing import check_checkerboard, check_model


class DrawsAnew(Popular):
    @classmethod
    def fit(cls, interactions, items=None, *, rng=None, **settings):
        model = super().fit(interactions, items)
        return cls({**model.arrays(), "score": model._score + np.random.default_rng().random(len(model._score))})


class IgnoresAllowed(Popular):
    def recommend(self, session, k, *, allowed=None):
        return super().recommend(session, k)


class ExplainsHalf(Popular):
    def explain(self, session, item_id):
        reason = super().explain(session, item_id)
        return Reason(item_id, reason.score, {name: part / 2 for name, part in reason.terms.items()})


class StumblesOverTheUnknown(Popular):
    def recommend(self, session, k, *, allowed=None):
        known = [item_id for item_id in session if item_id in self._vocabulary.code]
        return super().recommend(session, k - len(session) + len(known), allowed=allowed)


class RanksUpsideDown(Popular):
    def recommend(self, session, k, *, allowed=None):
        found = super().recommend(session, k, allowed=allowed)
        return ScoredItems(found.item_ids[::-1], found.scores[::-1], found.source)


class ForgetsOnDisk(Popular):
    @classmethod
    def from_arrays(cls, arrays):
        return cls({**arrays, "score": np.zeros_like(arrays["score"])})


class HasAMood(Popular):
    asked = 0

    def recommend(self, session, k, *, allowed=None):
        HasAMood.asked += 1
        found = super().recommend(session, k, allowed=allowed)
        return ScoredItems(found.item_ids, [score + HasAMood.asked for score in found.scores], found.source)


class SendsObjects(Popular):
    def arrays(self):
        return {**super().arrays(), "names": np.array(["a"], dtype=object)}


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        (DrawsAnew, "the same data and rng gave other arrays: score"),
        (IgnoresAllowed, "allowed must only leave items out"),
        (ExplainsHalf, "sum to"),
        (StumblesOverTheUnknown, "unknown items changed the answer"),
        (RanksUpsideDown, "scores must fall"),
        (ForgetsOnDisk, "the arrays changed on the way to the disk and back: score"),
        (HasAMood, "before the disk"),
    ],
)
def test_a_model_that_breaks_a_promise_is_told_which(kind, says):
    with pytest.raises(AssertionError, match=says):
        check_model(kind, personal=False)


def test_arrays_that_hold_python_objects_are_refused():
    with pytest.raises(AssertionError, match="names"):
        check_model(SendsObjects, personal=False)


def test_what_is_the_same_for_all_fails_on_the_checkerboard():
    with pytest.raises(AssertionError, match="a session all black got"):
        check_checkerboard(Popular)


def test_a_personal_model_cannot_pass_as_one_for_all():
    with pytest.raises(AssertionError, match="it is not personal, but its answers differ"):
        check_model(SessionKNN, personal=False)
