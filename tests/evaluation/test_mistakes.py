"""The worst sessions are those whose clicked items stood furthest down, and of equal ones the avoidable."""

import numpy as np

from thinslice.evaluation import split_log
from thinslice.evaluation.mistakes import mistakes, summary
from thinslice.models import Popular

ITEMS = 30


def world():
    """Item i is clicked 60 - i times; the test has one easy, one hard, and one longer hard session."""
    rows = [(f"s{item}-{number}", f"i{item:02d}") for item in range(ITEMS) for number in range(60 - item)]
    learn = len(rows)
    asked = [("easy", ["i03", "i00"]), ("hard", ["i00", "i29"]), ("harder", ["i00", "i29", "i28", "i29"])]
    rows += [(name, item) for name, items in asked for item in items]
    return {
        "session_id": np.array([row[0] for row in rows]),
        "item_id": np.array([row[1] for row in rows]),
        "ts": np.arange(len(rows), dtype=float),
        "split": np.array(["train"] * learn + ["test"] * (len(rows) - learn)),
    }


def test_many_misses_come_before_one_and_what_was_right_comes_last():
    split = split_log(world())
    model = Popular.fit(split.train, half_life_share=1e9)
    found = mistakes(model, split, 5)
    assert [mistake.session for mistake in found] == [["i00", "i29", "i28", "i29"], ["i00", "i29"], ["i03", "i00"]]
    worst = found[0].missed[0]
    assert (worst.clicked, worst.rank, worst.clicks) == ("i29", 30, 31)
    assert worst.shown == ["i00", "i01", "i02", "i03", "i04"]
    assert found[0].bits == (2 * np.log2(30) + np.log2(29)) / 4
    assert found[-1].missed[0].rank == 1
    assert len(mistakes(model, split, 5, count=2)) == 2


def test_the_summary_counts_what_was_not_found_at_all():
    split = split_log(world())

    class Blind(Popular):
        name = "blind"

        def recommend_codes(self, session, k, allowed=None):
            codes, scores = super().recommend_codes(session, k, allowed)
            return codes[:3], scores[:3]

    facts = summary(mistakes(Blind.fit(split.train, half_life_share=1e9), split, 5))
    assert (facts["sessions"], facts["queries"], facts["not_in_first_1000"]) == (3, 5, 4)
    assert facts["median_rank_of_the_others"] == 1
