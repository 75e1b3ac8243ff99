"""Who is a neighbor of whom, from the lake, and what control does where its neighbors got a treatment."""

import numpy as np
from numpy.typing import NDArray

from thinslice.experiments.communities import communities
from thinslice.experiments.evidence import Spillover, treatments
from thinslice.experiments.interactions import goal_of
from thinslice.experiments.sharing import spillover_of
from thinslice.jobs.daily import DAILY_DEEDS, DAILY_UNITS
from thinslice.jobs.graphs import GRAPH_DAYS
from thinslice.metrics.statistics import Database, rows_of
from thinslice.metrics.unit_table import UNIT_KEYS, identifier, text
from thinslice.records import Experiment
from thinslice.store.views import ROWS

LARGEST_GROUP = 200
"""In larger groups everybody has the same share of treated neighbors, so they tell nothing."""

SAME_ITEM = "units that came for the same item on the same day"
SAME_SELLER = "units that came for items of the same seller on the same day"
TIED = "people they follow, are connected with, or shared something with"


def spillovers(database: Database, experiment: Experiment) -> list[Spillover]:
    """What control's units do by the share of their neighbors that got a treatment, for each kind of neighbor.

    Neighbors are known before the first slate: what a unit looked at before it (who came for the same item or seller
    shares a stock), and the ties of people. Who bought is no neighbor of who bought: that is a result.

    Args:
        database: After `thinslice.jobs.daily.count_days` has looked at every unit, by the hash of its id.
        experiment: Its units are visitors, users or sessions. Where they are dealt anew each period, what neighbors
            got changes with it, and nothing is said.
    """
    if experiment.unit not in UNIT_KEYS or experiment.rerandomize_days or goal_of(experiment) is None:
        return []
    found = [_by_group(database, experiment, SAME_ITEM, "item_id")]
    if _has(database, "items"):
        seller = (
            f"(SELECT item_id, any_value(creator_id) AS seller FROM items WHERE tenant = {text(experiment.tenant)} "
        )
        seller += "AND creator_id IS NOT NULL GROUP BY item_id)"
        found.append(_by_group(database, experiment, SAME_SELLER, "seller", f"JOIN {seller} USING (item_id)"))
    if experiment.unit == "user" and _has(database, "edges"):
        found.append(_by_ties(database, experiment))
    return [of for of in found if of is not None]


def _by_group(
    database: Database, experiment: Experiment, neighbors: str, group: str, join: str = ""
) -> Spillover | None:
    """Neighbors are the units of the same group that came on the same day."""
    goal, key = goal_of(experiment), UNIT_KEYS[experiment.unit]
    assert goal is not None
    ties = (
        f"SELECT DISTINCT u.unit_id AS unit_id, u.treated AS treated, concat_ws('~', {group}, u.entry) AS place "
        f"FROM (SELECT hash({key}) AS unit_id, item_id, occurred_at FROM {ROWS}.events "
        f"WHERE tenant = {text(experiment.tenant)} AND {key} IS NOT NULL AND item_id IS NOT NULL AND NOT is_bot "
        "AND NOT duplicate AND name IN ('view_item', 'add_to_cart', 'purchase')) "
        f"AS e JOIN ({_sides(experiment)}) AS u ON e.unit_id = u.unit_id AND e.occurred_at <= u.first_exposure "
        f"AND e.occurred_at > u.first_exposure - INTERVAL {GRAPH_DAYS} DAY {join}"
    )
    below = "" if goal.denominator is None else ", d.below AS below"
    sums = f"sum({identifier(goal.numerator)}) AS above"
    sums += "" if goal.denominator is None else f", sum({identifier(goal.denominator)}) AS below"
    found = database.execute(
        f"WITH ties AS ({ties}), groups AS (SELECT place, count(*) AS n, sum(treated) AS t FROM ties GROUP BY place "
        f"HAVING count(*) BETWEEN 2 AND {LARGEST_GROUP}), shares AS (SELECT unit_id, sum(t) / sum(n - 1) AS share, "
        "min(place) AS place FROM ties JOIN groups USING (place) WHERE treated = 0 GROUP BY unit_id) "
        f"SELECT share, dense_rank() OVER (ORDER BY place) AS place, d.above AS above{below} FROM shares "
        f"JOIN (SELECT unit_id, {sums} FROM {DAILY_DEEDS} GROUP BY unit_id) AS d USING (unit_id) ORDER BY unit_id"
    ).fetchnumpy()
    return spillover_of(
        neighbors, found["above"], found["share"], found["place"],
        below=None if goal.denominator is None else found["below"],
    )  # fmt: skip


def _by_ties(database: Database, experiment: Experiment) -> Spillover | None:
    """Neighbors are tied by edges, whatever their direction."""
    goal = goal_of(experiment)
    assert goal is not None
    below = "0" if goal.denominator is None else f"sum({identifier(goal.denominator)})"
    units = database.execute(
        f"SELECT u.unit_id AS unit_id, any_value(u.treated) AS treated, sum({identifier(goal.numerator)}) AS above, "
        f"{below} AS below FROM ({_sides(experiment)}) AS u JOIN {DAILY_DEEDS} AS d ON d.unit_id = u.unit_id "
        "GROUP BY u.unit_id ORDER BY u.unit_id"
    ).fetchnumpy()
    code = {name: at for at, name in enumerate(np.asarray(units["unit_id"]).tolist())}
    tenant = text(experiment.tenant)
    tied = f"SELECT hash(from_id) AS a, hash(to_id) AS b FROM edges WHERE tenant = {tenant} AND kind <> 'block'"
    shared = (
        f"SELECT hash(user_id) AS a, hash(target_id) AS b FROM {ROWS}.events WHERE tenant = {tenant} "
        "AND name IN ('share', 'follow', 'connect') AND user_id IS NOT NULL AND target_id IS NOT NULL "
        f"AND occurred_at <= (SELECT min(first_exposure) FROM {DAILY_UNITS})"
    )
    pairs = rows_of(
        database,
        f"SELECT DISTINCT least(a, b) AS a, greatest(a, b) AS b FROM ({tied} UNION ALL {shared}) WHERE a <> b "
        "ORDER BY ALL",
    )
    ends = np.array([(code[row["a"]], code[row["b"]]) for row in pairs if row["a"] in code and row["b"] in code])
    if not len(ends):
        return None
    treated = np.asarray(units["treated"], dtype=np.float64)
    both = np.concatenate([ends, ends[:, ::-1]])
    many = np.bincount(both[:, 0], minlength=len(code))
    got = np.bincount(both[:, 0], weights=treated[both[:, 1]], minlength=len(code))
    kept: NDArray[np.bool_] = (many > 0) & (treated == 0)
    label = communities(len(code), (ends[:, 0], ends[:, 1]), rng=np.random.default_rng(0)).label
    return spillover_of(
        TIED, np.asarray(units["above"], dtype=np.float64)[kept], got[kept] / many[kept], label[kept],
        below=None if goal.denominator is None else np.asarray(units["below"], dtype=np.float64)[kept],
    )  # fmt: skip


def _sides(experiment: Experiment) -> str:
    """Units whose variant counts, with 1 for a treatment."""
    names = ", ".join(text(each.name) for each in [*treatments(experiment)])
    return (
        f"SELECT unit_id, first_exposure, entry, CAST(variant IN ({names}) AS INTEGER) AS treated FROM {DAILY_UNITS} "
        "WHERE NOT pooled"
    )


def _has(database: Database, view: str) -> bool:
    return bool(rows_of(database, f"SELECT 1 FROM information_schema.tables WHERE table_name = {text(view)} LIMIT 1"))
