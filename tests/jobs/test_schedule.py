"""The schedule: who is trained next, who lags, and how a failing job waits."""

from hypothesis import given
from hypothesis import strategies as st

from thinslice.jobs.compact import is_due
from thinslice.jobs.schedule import News, Timer, lag_s, next_training
from thinslice.settings import Lake


def test_a_tenant_that_was_never_trained_goes_first():
    news = [News("busy", 10**6, 0.0), News("new", 1, None)]
    assert next_training(news, now=1000.0, every_s=60.0) == "new"


def test_staleness_times_traffic_decides():
    news = [News("stale", 10, 0.0), News("busy", 1000, 900.0), News("both", 100, 100.0)]
    assert next_training(news, now=1000.0, every_s=60.0) == "busy"
    assert next_training(news[::2], now=1000.0, every_s=60.0) == "both"


def test_without_news_nobody_is_trained():
    assert next_training([News("a", 0, 0.0), News("b", 0, None)], now=10.0**9, every_s=60.0) is None


def test_nobody_is_trained_again_before_the_interval_is_over():
    assert next_training([News("a", 5, 950.0)], now=1000.0, every_s=60.0) is None
    assert next_training([News("a", 5, 950.0)], now=1010.0, every_s=60.0) == "a"


def test_lag_is_the_time_beyond_the_turn():
    assert lag_s([News("a", 5, 0.0), News("b", 5, 980.0), News("c", 0, 0.0)], 1000.0, 60.0) == {"a": 940.0, "b": 0.0}


@given(st.lists(st.tuples(st.integers(0, 100), st.floats(0, 1000)), min_size=1, max_size=8))
def test_the_chosen_one_is_always_due_and_has_news(rows):
    news = [News(f"t{number}", count, at) for number, (count, at) in enumerate(rows)]
    chosen = next_training(news, now=1000.0, every_s=60.0)
    due = {each.tenant for each in news if each.rows and 1000.0 - (each.trained_at or 0.0) >= 60.0}
    assert (chosen in due) if due else chosen is None


def test_a_failing_job_waits_longer_each_time_and_never_beyond_its_longest():
    timer = Timer(every_s=1.0, longest_s=30.0)
    pauses = []
    for _ in range(8):
        timer.failed(100.0)
        pauses.append(timer.due_at - 100.0)
    assert pauses == [2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]
    timer.done(200.0)
    assert timer.due(201.0)
    assert not timer.due(200.9)


def test_the_log_is_brought_in_by_time_or_by_size():
    settings = Lake(commit_every_s=60.0, commit_mb=64)
    assert not is_due(settings, waited_s=59.0, grown_bytes=63_000_000)
    assert is_due(settings, waited_s=60.0, grown_bytes=0)
    assert is_due(settings, waited_s=15.0, grown_bytes=0, new_items=True)
    assert not is_due(settings, waited_s=14.0, grown_bytes=0, new_items=True)
    assert is_due(settings, waited_s=0.0, grown_bytes=64_000_000)


def test_a_job_that_computes_long_comes_more_seldom_so_that_it_keeps_to_its_share():
    timer = Timer(5.0, share=0.1)
    timer.done(100.0, computed_s=0.2)
    assert timer.due_at == 105.0
    timer.done(105.0, computed_s=2.0)
    assert timer.due_at == 125.0
