"""From events to one row per visitor and block of time: the SQL of a switchback's unit table."""

from datetime import datetime

from thinslice.metrics.columns import PAGE_COLUMNS, UNIT_COLUMNS
from thinslice.metrics.unit_table import segment_sql, served_sql, text
from thinslice.records import Experiment


def block_units_sql(experiment: Experiment, until: datetime) -> str:
    """What each visitor did in each block of time of a switchback, without its burn-in; only blocks that are over.

    Views, carts, orders and sessions are those of visitors who were exposed in the block; clicks and impressions belong
    to the block of their slate. A block without any exposure is absent. A visitor without an id is in the row of its
    block that has `units` 0.

    Args:
        experiment: A switchback: `block_minutes` long, the first `burn_in_minutes` of each left out.
        until: Only what happened before.

    Returns:
        SQL over `exposure_variants`, `events` and `orders`: number, variant, mixed (of the block), visitor, units
        (1 a visitor), s0… (the experiment's segments, as of the visitor's first slate in the block), the unit columns.
    """
    tenant, width = text(experiment.tenant), (experiment.block_minutes or 0.0) * 60
    late = f"epoch(occurred_at) - block * {width!r} >= {experiment.burn_in_minutes * 60!r}"
    live = f"tenant = {tenant} AND NOT is_bot AND NOT duplicate"
    who = f"coalesce(visitor_id, '') AS visitor, CAST(floor(epoch(occurred_at) / {width!r}) AS BIGINT) AS block"
    events = f"(SELECT {who}, session_id, name, occurred_at FROM events WHERE {live} AND visitor_id IS NOT NULL)"
    orders = (
        f"(SELECT {who}, session_id, total_minor, occurred_at FROM orders WHERE tenant = {tenant} "
        "AND visitor_id IS NOT NULL)"
    )
    known = "".join(f", {segment_sql(name)} AS s{at}" for at, name in enumerate(experiment.segments))
    first = "".join(
        f", coalesce(arg_min(s{at}, occurred_at), 'unknown') AS s{at}" for at in range(len(experiment.segments))
    )
    kept = "".join(f", s{at}" for at in range(len(experiment.segments)))
    parts = {
        "exposed": {"exposures": "1"},
        "named": {
            "impressions": "CAST(name = 'view_item_list' AS INTEGER)",
            "clicks": "CAST(name = 'select_item' AS INTEGER)",
        },
        "acts SEMI JOIN here USING (block, visitor)": {
            "views": "CAST(name = 'view_item' AS INTEGER)", "carts": "CAST(name = 'add_to_cart' AS INTEGER)",
        },
        "(SELECT block, visitor, count(*) AS n, sum(total_minor) AS paid FROM sold SEMI JOIN here "
        "USING (block, visitor) GROUP BY block, visitor)": {"orders": "n", "converted": "1", "revenue_minor": "paid"},
        "(SELECT block, visitor, count(DISTINCT session_id) AS n FROM visits SEMI JOIN here USING (block, visitor) "
        "GROUP BY block, visitor)": {"sessions": "n"},
    }  # fmt: skip
    columns, page = list(UNIT_COLUMNS), ""
    if experiment.placement != "*":
        columns += PAGE_COLUMNS
        page = (
            f"paged AS (SELECT * FROM (SELECT {who}, occurred_at, recommendation_id FROM exposures "
            f"WHERE tenant = {tenant} AND NOT shadow AND NOT is_bot) SEMI JOIN here USING (block, visitor) "
            f"WHERE {late}),\n"
            "seen AS (SELECT block, visitor, name FROM paged JOIN (SELECT recommendation_id, name FROM events "
            f"WHERE {live} AND name IN ('select_item', 'view_item_list')) USING (recommendation_id)),\n"
        )
        parts["paged"] = {"page_exposures": "1"}
        parts["seen"] = {
            "page_impressions": "CAST(name = 'view_item_list' AS INTEGER)",
            "page_clicks": "CAST(name = 'select_item' AS INTEGER)",
        }
    rows = []
    for table, of in parts.items():
        values = ", ".join(f"{of.get(name, '0')} AS {name}" for name in columns)
        rows.append(f"SELECT block, visitor, {values} FROM {table}")
    return f"""
WITH exposed AS (
    SELECT * FROM (SELECT CAST(unit_id AS BIGINT) AS block, variant, coalesce(visitor_id, '') AS visitor, session_id,
                          recommendation_id, occurred_at{known}
                   FROM exposure_variants WHERE {served_sql(experiment, until)} AND NOT is_bot)
    WHERE {late} AND (block + 1) * {width!r} <= {until.timestamp()!r}),
here AS (SELECT block, visitor{first} FROM exposed GROUP BY block, visitor),
sides AS (SELECT block, min(variant) AS variant, min(variant) <> max(variant) AS mixed FROM exposed GROUP BY block),
named AS (SELECT block, visitor, name FROM exposed JOIN (SELECT recommendation_id, name FROM events WHERE {live}
          AND name IN ('select_item', 'view_item_list')) USING (recommendation_id)),
acts AS (SELECT * FROM {events} WHERE {late}), sold AS (SELECT * FROM {orders} WHERE {late}),
visits AS (SELECT block, visitor, session_id FROM exposed WHERE visitor <> ''
           UNION SELECT block, visitor, session_id FROM acts
           UNION SELECT block, visitor, session_id FROM sold),
{page}deeds AS ({" UNION ALL ".join(rows)})
SELECT block AS number, any_value(variant) AS variant, any_value(mixed) AS mixed, visitor,
       CAST(visitor <> '' AS INTEGER) AS units{kept},
       {", ".join(f"sum({name}) AS {name}" for name in columns)}
FROM deeds JOIN here USING (block, visitor) JOIN sides USING (block)
GROUP BY block, visitor{kept} ORDER BY block, visitor"""
