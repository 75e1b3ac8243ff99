"""The metrics that every shop has without writing them down."""

from thinslice.records import Metric

METRICS = {
    metric.name: metric
    for metric in (
        Metric(name="revenue_per_visitor", numerator="revenue_minor"),
        Metric(name="conversion_rate", numerator="converted"),
        Metric(name="orders_per_visitor", numerator="orders"),
        Metric(name="average_order_value", numerator="revenue_minor", denominator="orders"),
        Metric(name="click_through_rate", numerator="clicks", denominator="exposures"),
        Metric(name="carts_per_visitor", numerator="carts"),
        Metric(name="views_per_visitor", numerator="views"),
        Metric(name="views_per_session", numerator="views", denominator="sessions"),
    )
}
"""Built-in metrics by name."""

MONEY_COLUMN = "revenue_minor"
"""The column that is money in minor units; what is made of it is printed with the tenant's currency."""

DEFAULT_METRICS = [
    Metric(name="revenue_per_visitor", numerator="revenue_minor", role="goal"),
    METRICS["conversion_rate"],
    METRICS["click_through_rate"],
    Metric(name="views_per_visitor", numerator="views", role="guardrail", margin=0.05),
]
"""What an experiment is judged by when its file names no metric: one goal, two drivers, one guardrail."""


def unit_of(metric: Metric) -> str:
    """In what a metric is read: `money` in minor units, `share` 0..1, or `count`.

    >>> unit_of(METRICS["conversion_rate"])
    'share'
    """
    if metric.numerator == MONEY_COLUMN:
        return "money"
    is_share = (metric.numerator, metric.denominator) in {("converted", None), ("clicks", "exposures")}
    return "share" if is_share else "count"
