"""Lessons hold the rows that a question would show, though only those that are kept are worked out."""

import numpy as np
import pytest

from thinslice.models import from_columns
from thinslice.models.candidates import DEFAULTS, Candidates, questions_of
from thinslice.models.tuning import head


@pytest.fixture(scope="module")
def log():
    draw = np.random.default_rng(0)
    session = np.repeat(np.arange(400), 6)
    item = (session * 7 + draw.integers(0, 9, len(session))) % 50
    return from_columns(session, item, np.arange(len(session), dtype=np.float64))


@pytest.mark.parametrize("keep", [0.0, 0.2, 1.0])
def test_each_row_that_is_kept_is_the_row_of_its_question(log, keep):
    stage = Candidates.build(head(log, 300), DEFAULTS)
    questions = questions_of(log, 300, np.ones(50, dtype=bool)).some(np.arange(60))
    more = [np.array([number % 50, (number + 1) % 50], np.int32) for number in range(60)]
    lessons = stage.lessons(questions, 10, keep, 3, more)
    assert 0 < (lessons.rank >= 0).sum() < 60
    for number in range(60):
        found = stage.look(questions.clicks[questions.begin[number] : questions.end[number]], 0, 10, more[number])
        own = lessons.question == number
        if questions.answer[number] not in found.codes:
            assert lessons.rank[number] == -1
            assert not own.any()
            continue
        place = [found.codes.tolist().index(code) for code in lessons.code[own].tolist()]
        assert place == sorted(place)
        assert lessons.rows[own].tolist() == found.rows[place].tolist()
        assert (found.codes[place] == questions.answer[number]).tolist() == lessons.label[own].astype(bool).tolist()
        assert found.codes[lessons.rank[number]] == questions.answer[number]
        if keep == 1:
            assert len(place) == len(found.codes)
