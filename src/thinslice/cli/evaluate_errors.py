"""`thinslice evaluate --errors`: fits one model, finds the sessions in which it is most wrong, and draws them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from thinslice.evaluation.mistakes import Mistake
    from thinslice.records import Item


def find_errors(
    columns: Mapping[str, NDArray[Any]],
    items: Sequence[Item],
    name: str,
    k: int,
    *,
    out: Path,
    where: str,
    pictures: Path | None,
    **how: Any,
) -> dict[str, Any]:
    """Writes the page and returns what it says, in plain values.

    Args:
        columns: The log.
        items: The catalog.
        name: Of the model.
        k: Length of a list.
        out: The page.
        where: Which log this is, for people.
        pictures: The folder of the catalog's pictures; None: none.
        how: Of `split_log`.
    """
    from thinslice.cli.mistakes_page import page
    from thinslice.evaluation import fitted, split_log
    from thinslice.evaluation.measure import catalog_at
    from thinslice.evaluation.mistakes import mistakes, summary
    from thinslice.models import MODELS

    split = split_log(columns, **how)
    model = fitted(MODELS[name], split.train, catalog_at(items, split), 0, {})
    found = mistakes(model, split, k)
    facts = summary(found)
    catalog = {item.item_id: item for item in items}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page(name, found, catalog, facts, where=where, k=k, pictures=pictures), encoding="utf-8")
    return {"model": name, "file": str(out), "summary": facts, "sessions": [_plain(mistake) for mistake in found]}


def print_errors(result: dict[str, Any], items: Sequence[Item]) -> None:
    """The ten worst, a line each, and where the page is."""
    import click

    titles = {item.item_id: item.title for item in items if item.title}

    def named(item_id: str) -> str:
        title = titles.get(item_id)
        return f"{item_id} ({title})" if title and title != item_id else item_id

    for number, mistake in enumerate(result["sessions"][:10], start=1):
        worst = mistake["missed"][0]
        place = f"at place {worst['rank']:,}" if worst["rank"] else "not in the first 1,000"
        click.echo(
            f"{number:>3}  after {', '.join(map(named, worst['known'][-3:]))}: "
            f"clicked {named(worst['clicked'])}, {place}; "
            f"shown first {', '.join(map(named, worst['shown'][:3])) or 'nothing'}"
        )
    facts = result["summary"]
    rest = facts["median_rank_of_the_others"]
    click.echo(
        f"{facts['sessions']} sessions, {facts['queries']} queries: {facts['not_in_first_1000']} times the clicked "
        "item was not in the first 1,000" + ("" if rest is None else f", else at a median place of {rest:,.0f}") + "."
    )
    click.echo(f"{result['model']}: all of them in pictures are in {result['file']}")


def _plain(mistake: Mistake) -> dict[str, Any]:
    return {
        "session": mistake.session,
        "user": mistake.user,
        "bits": round(mistake.bits, 4),
        "missed": [one._asdict() for one in mistake.missed],
    }
