"""From events to one row per visitor and variant: the SQL, in two steps that anyone can run and read."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from thinslice.metrics.columns import PAGE_COLUMNS, UNIT_COLUMNS
from thinslice.records import Experiment

UNIT_KEYS = {"visitor": "visitor_id", "session": "session_id", "user": "user_id"}
"""The column of events and orders that carries the unit's id."""

FIRST_MOMENT = "0001-01-01T00:00:00+00:00"
LAST_MOMENT = "9999-12-31T00:00:00+00:00"


VECTOR = "CAST(to_json(propensities) AS VARCHAR)"
"""The logged probabilities of an exposure as text, in SQL."""


def units_sql(experiment: Experiment, until: datetime | None = None, vector: str = VECTOR) -> str:
    """The units of an experiment: who was served, first when, under which variant and probabilities.

    A unit with an exposure that is tagged as a bot's has `is_bot` true and counts nowhere. A unit that was seen in two
    variants has `mixed` true and its first variant. Of exposures at the same moment the one whose variant,
    probabilities and segments come first by letters counts as the first, in whatever order rows lie. Where units are
    drawn anew by period, each period of one is a unit.

    Args:
        experiment: Exposures count from its start on.
        until: Only what happened before; None for everything.
        vector: The probabilities of an exposure as text, in SQL.

    Returns:
        SQL over the view `exposure_variants`: unit_id, key (what was randomized as a whole), variant, mixed, is_bot,
        slates (how many it was served), first_exposure, and as of it propensities (of all variants, JSON text) and
        s0… (the experiment's segments).
    """
    unit = _unit(experiment)
    known = [("at", "occurred_at"), ("variant", "variant"), ("propensities", vector)]
    known += [(f"s{at}", f"coalesce({segment_sql(name)}, 'unknown')") for at, name in enumerate(experiment.segments)]
    opening = ", ".join(f"{name} := {of}" for name, of in known)
    segments = "".join(f", opening.s{at} AS s{at}" for at in range(len(experiment.segments)))
    return f"""
SELECT unit_id, key, opening.variant AS variant, mixed, is_bot, slates, opening.at AS first_exposure,
       opening.propensities AS propensities{segments}
FROM (SELECT {unit} AS unit_id, min(unit_id{_period(experiment)}) AS key, min(variant) <> max(variant) AS mixed,
             bool_or(is_bot) AS is_bot, count(*) AS slates, min(struct_pack({opening})) AS opening
      FROM exposure_variants
      WHERE {served_sql(experiment, until)} AND {unit} IS NOT NULL
      GROUP BY {unit})"""


def openings_sql(experiment: Experiment, until: datetime, contexts: Sequence[Sequence[str]]) -> str | None:
    """The same units as few numbers each, which `opened_sql` reads: the first moment and what held then are one number.

    Args:
        experiment: With a start; what is randomized is the unit itself.
        until: Only what happened before.
        contexts: All (variant, probabilities, segments…) in the order of letters; the view has the columns
            `context_code`, each row's place in them, and `variant_code`.

    Returns:
        SQL over `exposure_variants`: unit_id, mixed, is_bot, slates, opening. None where the numbers would not do.
    """
    since = _since(experiment)
    if not contexts or (until.timestamp() * 10**6 - since) * len(contexts) >= 2**62:
        return None
    unit = _unit(experiment)
    return f"""
SELECT {unit} AS unit_id, min(variant_code) <> max(variant_code) AS mixed, bool_or(is_bot) AS is_bot,
       CAST(count(*) AS INTEGER) AS slates,
       min((epoch_us(occurred_at) - {since}) * {len(contexts)} + context_code) AS opening
FROM exposure_variants WHERE {served_sql(experiment, until)} AND {unit} IS NOT NULL GROUP BY {unit}"""


def opened_sql(experiment: Experiment, openings: str, contexts: Sequence[Sequence[str]]) -> str:
    """Units as `units_sql` gives them, from the table that `openings_sql` made."""
    columns = ", ".join(["variant", "propensities", *(f"s{at}" for at in range(len(experiment.segments)))])
    rows = ", ".join(f"({at}, {', '.join(text(value) for value in of)})" for at, of in enumerate(contexts))
    return f"""
SELECT unit_id, unit_id AS key, mixed, is_bot, slates,
       make_timestamptz(opening // {len(contexts)} + {_since(experiment)}) AS first_exposure, {columns}
FROM {openings} JOIN (VALUES {rows}) AS o(code, {columns}) ON opening % {len(contexts)} = o.code"""


def acts_sql(
    experiment: Experiment, until: datetime | None = None, units: str | None = None,
    columns: Collection[str] = tuple(UNIT_COLUMNS),
) -> str:  # fmt: skip
    """What each unit did since its first exposure, as increments of the unit columns.

    Clicks and impressions count when they name a slate of this experiment that the unit itself was served; orders are
    those of the table `orders`, whose money can be trusted. Bots' and duplicate events are left out. A unit converts
    with its first order, and a session counts where it begins.

    Args:
        experiment: Whose units.
        until: Only what happened before; None for everything.
        units: A table made by `units_sql`; None to build it inside.
        columns: Only these unit columns; what none of them needs is not read.

    Returns:
        SQL over `exposure_variants`, `events` and `orders` (`exposures` for a page's columns): unit_id, key, variant,
        first_exposure, done_at, and one integer per unit column asked for.
    """
    key, tenant = event_unit(experiment), text(experiment.tenant)
    end = text(LAST_MOMENT if until is None else until.isoformat())
    source = f"({units_sql(experiment, until)})" if units is None else units
    live = f"tenant = {tenant} AND NOT is_bot AND NOT duplicate"
    events = f"(SELECT {key} AS unit_id, name, occurred_at, session_id, recommendation_id FROM events WHERE {live})"
    orders = f"(SELECT {key} AS unit_id, occurred_at, session_id, total_minor FROM orders WHERE tenant = {tenant})"
    parts = []

    def add(table: str, of: Mapping[str, str], where: str = "true", at: str = "occurred_at") -> None:
        asked = {name: sql for name, sql in of.items() if name in columns}
        if asked:
            values = ", ".join(f"{asked.get(name, '0')} AS {name}" for name in columns)
            parts.append(f"SELECT unit_id, {at} AS done_at, {values} FROM {table} WHERE {where}")

    add("served", {"exposures": "1"})
    page = ""
    if set(columns) & set(PAGE_COLUMNS):
        page = (
            f"paged AS (SELECT {key} AS unit_id, occurred_at, recommendation_id FROM exposures WHERE tenant = {tenant} "
            f"AND NOT shadow AND NOT is_bot AND {UNIT_KEYS.get(experiment.unit, 'visitor_id')} IS NOT NULL),\n"
        )
        add("paged", {"page_exposures": "1"})
        of_page = {"page_impressions": "CAST(name = 'view_item_list' AS INTEGER)",
                   "page_clicks": "CAST(name = 'select_item' AS INTEGER)"}  # fmt: skip
        add(f"(SELECT * FROM {events} WHERE name IN ('select_item', 'view_item_list')) "
            "SEMI JOIN paged USING (recommendation_id)", of_page)  # fmt: skip
    named = f"(SELECT * FROM {events} WHERE name IN ('select_item', 'view_item_list'))"
    seen = {
        "impressions": "CAST(name = 'view_item_list' AS INTEGER)",
        "clicks": "CAST(name = 'select_item' AS INTEGER)",
    }
    add(f"{named} SEMI JOIN served USING (unit_id, recommendation_id)", seen)
    opened = {"views": "CAST(name = 'view_item' AS INTEGER)", "carts": "CAST(name = 'add_to_cart' AS INTEGER)"}
    add(f"{events} AS e", opened, "name IN ('view_item', 'add_to_cart')")
    add(f"{orders} AS o", {"orders": "1", "revenue_minor": "total_minor"})
    after = "occurred_at >= u.first_exposure"
    joined = "JOIN (SELECT unit_id, first_exposure FROM units) AS u USING (unit_id)"
    first = f"(SELECT unit_id, min(occurred_at) AS began FROM {orders} AS o {joined} WHERE {after} GROUP BY unit_id)"
    add(first, {"converted": "1"}, at="began")
    visits = " UNION ALL ".join(
        f"SELECT unit_id, session_id, occurred_at FROM {of}" for of in ("served", f"{events} AS e", f"{orders} AS o")
    )
    began = (
        f"(SELECT unit_id, min(occurred_at) AS began FROM ({visits}) AS s {joined} "
        f"WHERE {after} AND session_id IS NOT NULL GROUP BY unit_id, session_id)"
    )
    add(began, {"sessions": "1"}, at="began")
    return f"""
WITH units AS (SELECT unit_id, key, variant, first_exposure FROM {source} WHERE NOT mixed AND NOT is_bot),
served AS (SELECT {_unit(experiment)} AS unit_id, occurred_at, session_id, recommendation_id FROM exposure_variants
           WHERE {served_sql(experiment, until)}),
{page}deeds AS ({" UNION ALL ".join(parts)})
SELECT unit_id, u.key AS key, u.variant AS variant, u.first_exposure AS first_exposure, done_at, {", ".join(columns)}
FROM deeds JOIN units AS u USING (unit_id)
WHERE done_at >= u.first_exposure AND done_at < TIMESTAMPTZ {end}"""


def unit_table_sql(experiment: Experiment, until: datetime | None = None) -> str:
    """The unit table: one row per unit and variant with every column of `UNIT_COLUMNS`.

    Args:
        experiment: Whose units.
        until: Only what happened before; None for everything.

    Returns:
        SQL over `exposure_variants`, `events` and `orders`.
    """
    sums = ", ".join(f"sum({column}) AS {column}" for column in UNIT_COLUMNS)
    return f"SELECT unit_id, variant, {sums} FROM ({acts_sql(experiment, until)}) GROUP BY unit_id, variant"


ORDER_COLUMNS = ("orders", "converted", "revenue_minor")
"""Unit columns that are zero for whoever ordered nothing."""

PAST_COLUMNS = ("clicks", "views", "carts", "orders", "converted", "revenue_minor", "sessions")
"""Unit columns that can be counted before anybody was exposed, too."""


def past_sql(experiment: Experiment, units: str) -> str:
    """What each unit did in the `covariate_days` before its first exposure; units that did nothing are absent.

    Args:
        experiment: Whose units.
        units: A table made by `units_sql`.

    Returns:
        SQL over `events` and `orders`: unit_id and one column per name in `PAST_COLUMNS`.
    """
    key, tenant = event_key(experiment), text(experiment.tenant)
    length = f"to_seconds({(experiment.covariate_days or 0.0) * 86_400!r})"
    before = f"occurred_at < u.first_exposure AND occurred_at >= u.first_exposure - {length}"
    return f"""
SELECT unit_id, sum(clicks) AS clicks, sum(views) AS views, sum(carts) AS carts, sum(orders) AS orders,
       CAST(sum(orders) > 0 AS INTEGER) AS converted, sum(revenue_minor) AS revenue_minor,
       count(DISTINCT session_id) AS sessions
FROM (
    SELECT unit_id, session_id, CAST(name = 'select_item' AND recommendation_id IS NOT NULL AS INTEGER) AS clicks,
           CAST(name = 'view_item' AS INTEGER) AS views, CAST(name = 'add_to_cart' AS INTEGER) AS carts, 0 AS orders,
           0 AS revenue_minor
    FROM (SELECT {key} AS unit_id, * FROM events WHERE tenant = {tenant} AND NOT is_bot AND NOT duplicate) AS e
    JOIN {units} AS u USING (unit_id) WHERE {before}
    UNION ALL
    SELECT unit_id, session_id, 0, 0, 0, 1, total_minor
    FROM (SELECT {key} AS unit_id, * FROM orders WHERE tenant = {tenant}) AS o
    JOIN {units} AS u USING (unit_id) WHERE {before}
) GROUP BY unit_id"""


def sightings_sql(experiment: Experiment, until: datetime | None, units: str) -> str:
    """Slates that each unit was served, and those of them of which a page reported that they were seen.

    Args:
        experiment: Whose units.
        until: Only what happened before; None for everything.
        units: A table made by `units_sql`.

    Returns:
        SQL over `exposure_variants` and `events`: variant, served, seen; one row a unit.
    """
    start = text(FIRST_MOMENT if experiment.started_at is None else experiment.started_at.isoformat())
    end = text(LAST_MOMENT if until is None else until.isoformat())
    return f"""
SELECT variant, slates AS served, coalesce(seen, 0) AS seen FROM {units} LEFT JOIN (
    SELECT unit_id, count(*) AS seen
    FROM (SELECT {_unit(experiment)} AS unit_id, recommendation_id FROM exposure_variants
          WHERE {served_sql(experiment, until)})
    SEMI JOIN (SELECT {event_unit(experiment)} AS unit_id, recommendation_id FROM events
               WHERE tenant = {text(experiment.tenant)} AND name = 'view_item_list'
               AND occurred_at >= TIMESTAMPTZ {start} AND occurred_at < TIMESTAMPTZ {end})
    USING (unit_id, recommendation_id)
    GROUP BY unit_id
) USING (unit_id) WHERE NOT mixed"""


def event_key(experiment: Experiment) -> str:
    """The column of events and orders that names a row of the unit table; inside of clusters these are visitors."""
    return UNIT_KEYS.get(experiment.unit, "visitor_id")


def event_unit(experiment: Experiment) -> str:
    """A row of the unit table as events and orders tell it: that column, and the period where units are drawn anew."""
    return event_key(experiment) + _period(experiment)


def text(value: str) -> str:
    """A text literal in SQL.

    >>> text("it's")
    "'it''s'"
    """
    return "'" + value.replace("'", "''") + "'"


def identifier(name: str) -> str:
    """A column or table name in SQL, whatever it holds.

    >>> identifier("order by")
    '"order by"'
    """
    return '"' + name.replace('"', '""') + '"'


def _since(experiment: Experiment) -> int:
    """The start in microseconds."""
    return 0 if experiment.started_at is None else round(experiment.started_at.timestamp() * 10**6)


def _unit(experiment: Experiment) -> str:
    """The column of exposures that names a row of the unit table."""
    return ("visitor_id" if experiment.unit == "cluster" else "unit_id") + _period(experiment)


def _period(experiment: Experiment) -> str:
    """Where units are drawn anew by period: what makes of each of its periods a unit of its own."""
    if experiment.rerandomize_days is None:
        return ""
    start = 0.0 if experiment.started_at is None else experiment.started_at.timestamp()
    period = f"floor((epoch(occurred_at) - {start!r}) / {experiment.rerandomize_days * 86_400!r})"
    return f" || '~' || CAST(CAST({period} AS BIGINT) AS VARCHAR)"


def segment_sql(name: str) -> str:
    """What is known of a unit as of an exposure: the placement, or what the question's context said."""
    return "placement" if name == "placement" else f"segments[{text(name)}]"


def served_sql(experiment: Experiment, until: datetime | None) -> str:
    """Which rows of `exposure_variants` count: this experiment's, since its start and before `until`.

    With a `pooled_share` those of units that models served which learned from everybody do not.
    """
    since = FIRST_MOMENT if experiment.started_at is None else experiment.started_at.isoformat()
    end = LAST_MOMENT if until is None else until.isoformat()
    own = " AND context_leaf IS DISTINCT FROM 'pooled'" if experiment.pooled_share else ""
    return (
        f"tenant = {text(experiment.tenant)} AND experiment = {text(experiment.name)}"
        f" AND unit_id IS NOT NULL AND NOT shadow{own}"
        f" AND occurred_at >= TIMESTAMPTZ {text(since)} AND occurred_at < TIMESTAMPTZ {text(end)}"
    )
