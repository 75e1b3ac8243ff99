"""Slates: candidates → rules → arrangement → slate, for one question that the recommender has understood."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping

from thinslice.recommend import Arrange, Rung, Slate, climb
from thinslice.recommend.arrangement import arranger, fresh
from thinslice.recommend.diversity import likeness_of, mix_of, spread
from thinslice.recommend.explore import Explorer, seed_of
from thinslice.recommend.masks import Listed, Ruled, Within
from thinslice.recommend.objectives import terms_of
from thinslice.recommend.rules import Quotas
from thinslice.records import Model, Recommendation, SlateItem
from thinslice.serving.question import Look, Question
from thinslice.serving.shelves import COSTLY, RECIPES, Recipe, Viewed, as_terms, cart_of, rung_names

_log = logging.getLogger("thinslice.serving")

ALTERNATES = 1024
"""How many places' last good slates one worker remembers."""

DEEPER = 4
"""Where rules, diversity or exploration choose among candidates, the first rung gives so many times the places.

For 20 places that is fewer than the session ranker ranks at once: a second block would cost as much as the first.
"""

AT_LEAST = 60
"""And at least so many."""

CATEGORIES_OF = 5
"""The categories of so many of the session's newest items are those that a visitor looks at."""

ONLY_HARD = "The rules left nothing, so only those that always hold were kept."
LATE = "The request had waited too long for {}: a quicker model answered."
NOTHING = "Nothing at all may be shown here: there is no item that is available and that the rules allow."


class Slates:
    """Makes slates; one in each worker.

    Attributes:
        failures: How often each model broke at a request.
        removed: (tenant, rule) → items that it took out, added up over slates; whoever reports them takes them away.
        late: Tenant → slates for which a costly model was passed over; taken away in the same way.
    """

    def __init__(self) -> None:
        self.failures: Counter[str] = Counter()
        self.removed: Counter[tuple[str, str]] = Counter()
        self.late: Counter[str] = Counter()
        self._rung_names: dict[tuple[str, int, str, str], list[str]] = {}
        self._last_good: dict[tuple[str, str, str], list[SlateItem]] = {}

    def answer(self, question: Question) -> tuple[Slate, str]:
        """The slate, and what there is to say about it: mostly nothing.

        Where the rules leave nothing, only the hard ones hold, and if that is not enough the visitor's own items come
        back: better that than an empty page.
        """
        note = ""
        slate = self._slate(question)
        if not slate.items and question.book.filters:
            slate = self._slate(question, hard_only=True, without=set(left_out(question)))
            note = ONLY_HARD
        if not slate.items:
            slate = self._slate(question, hard_only=True, without=set())
            note = ONLY_HARD if question.book.filters else ""
        if not slate.items:  # another worker may have been told of the first items a moment ago
            question.catalog.refresh(question.at, at_once=True)
            slate = self._slate(question)
            note = "" if slate.items else NOTHING
        if question.late and not note and (skipped := self._skipped(question)):
            self.late[question.tenant] += 1
            note = LATE.format(skipped)
        if slate.items and slate.items[0].source != "last-good":
            place = _place(question)
            if len(self._last_good) >= ALTERNATES and place not in self._last_good:
                self._last_good.pop(next(iter(self._last_good)))
            self._last_good[place] = slate.items
        for name, count in slate.removed.items():
            self.removed[question.tenant, name] += count
        return slate, note

    def take_removed(self) -> Counter[tuple[str, str]]:
        """What rules took out since the last time: (tenant, rule) → items."""
        removed, self.removed = self.removed, Counter()
        return removed

    def take_late(self) -> Counter[str]:
        """Slates since the last time for which a costly model was passed over: tenant → how many."""
        late, self.late = self.late, Counter()
        return late

    def look(self, question: Question) -> Look:
        """An answer with its making laid open: the terms of each score, and what each rule took out."""
        slate, note = self.answer(question)
        catalog, rungs = question.catalog, self._rungs(question, hard_only=False)
        named = {rung.source or rung.model.name: rung for rung in reversed(rungs)}
        terms: list[Mapping[str, float]] = []
        for item in slate.items:
            rung = named.get(item.source)
            asked = question.items if rung is None or rung.session is None else rung.session
            if slate.objectives and question.bundle is not None and question.bundle.rates is not None:
                terms.append(terms_of(item.score, item.item_id, question.bundle.rates, slate.objectives))
                continue
            terms.append(as_terms(None if rung is None else rung.model, asked, item.item_id, question.user_id))
        free = [rung._replace(availability=Listed(rung.model.item_ids, _anything)) for rung in rungs]
        before = climb(
            question.items, question.request.k, rungs=free, catalog=catalog.items, title=catalog.title,
            failed=self._failed, user_id=question.user_id,
        ).items  # fmt: skip
        answer = Recommendation(
            recommendation_id=question.recommendation_id,
            policy=question.policy_name,
            model_version=question.version,
            items=slate.items,
            note=note,
        )
        shown = {item.item_id for item in slate.items}
        blocked = {
            item.item_id: rule for item in before
            if item.item_id not in shown and (rule := self._blocks(question, item.item_id))
        }  # fmt: skip
        boosts = [catalog.boosts(question.book, item.item_id) for item in slate.items]
        spreads = [spread([item.item_id for item in each], catalog.items) for each in (before, slate.items)]
        return Look(answer, terms, boosts, before, slate.removed, blocked, (spreads[0], spreads[1]))

    def _slate(self, question: Question, *, hard_only: bool = False, without: set[str] | None = None) -> Slate:
        """Candidates → rules → arrangement → slate; `without` stands in place of `left_out`."""
        book, catalog, k = question.book, question.catalog, question.request.k
        if without is None:
            without = set(left_out(question))
        quotas = Quotas(book.quotas, catalog.items) if book.quotas and not hard_only else None
        rungs = self._rungs(question, hard_only=hard_only)
        arrange = self._arrange(question)
        slate = climb(
            question.items,
            k,
            rungs=rungs,
            catalog=_lets(question, catalog.in_order(), hard_only),
            last_good=_good(question, self._last_good.get(_place(question), ()), hard_only),
            without=without,
            title=catalog.title,
            failed=self._failed,
            depth=_depth(question) if arrange is not None or book.deep else 0,
            admit=None if quotas is None else quotas.admit,
            arrange=arrange,
            pins=_pins(question, without) if book.pins else None,
            boost=catalog.booster(book) if book.boosts else None,
            user_id=question.user_id,
            fresh=_fresh(question, hard_only) if arrange is not None else (),
            most_fresh=question.policy.chance.newcomers if question.policy.explore.endswith("-thompson") else 0,
        )
        return slate._replace(removed=_removed(question, rungs, quotas)) if book.here else slate

    def _arrange(self, question: Question) -> Arrange | None:
        """Orders the candidates: objectives, diversity, exploration; None leaves them as they are ranked."""
        policy = question.policy
        if policy.explore == "none" and policy.diversity <= 0 and not policy.objectives:
            return None
        items, traits, bundle = question.catalog.items, question.catalog.traits, question.bundle
        return arranger(
            policy,
            explorer=_explorer(question),
            rates=None if bundle is None else bundle.rates,
            likeness=lambda item_ids: likeness_of([items.get(item_id) for item_id in item_ids], traits),
            mix=lambda item_ids: mix_of(list(map(items.get, item_ids)), list(map(items.get, question.items))),
            seed=seed_of(question.recommendation_id),
        )

    def _rungs(self, question: Question, *, hard_only: bool) -> list[Rung]:
        """The models that answer, each with what it may show and what it is asked."""
        policy = question.policy
        recipe = RECIPES.get(policy.model)
        models = self._models(question, recipe.model if recipe else policy.model)
        catalog, book, asked = question.catalog, question.book, question.asked
        if not book.filters:
            rungs = [Rung(model, catalog.availability(model)) for model in models]
        else:
            rungs = [Rung(model, Ruled(catalog.masks(model, book), asked, hard_only=hard_only)) for model in models]
        deal = question.chosen.deal
        if deal is not None:
            rungs = [
                each._replace(availability=Within(each.availability, deal.mask(each.model.item_ids))) for each in rungs
            ]
        return rungs if recipe is None else _by_recipe(question, recipe, rungs, hard_only)

    def _models(self, question: Question, kind: str) -> list[Model]:
        """The models that answer, in order; their names are found once for each generation."""
        bundle = question.bundle
        if bundle is None:
            return []
        place = (bundle.version, len(bundle.models), question.shown_name, kind)
        names = self._rung_names.get(place)
        if names is None:
            if len(self._rung_names) >= ALTERNATES:
                self._rung_names.clear()
            names = self._rung_names[place] = rung_names(bundle, question.shown_name, kind)
        models = [bundle.models[name] for name in names]
        return _quick(models) if question.late else models

    def _skipped(self, question: Question) -> str:
        """The name of the policy's own model when it was passed over as too costly for a late request; else empty."""
        recipe = RECIPES.get(question.policy.model)
        kind = recipe.model if recipe else question.policy.model
        whole = self._models(question._replace(late=False), kind)
        return whole[0].name if whole and whole[0] is not self._models(question, kind)[0] else ""

    def _blocks(self, question: Question, item_id: str) -> str:
        """The rule that keeps one item out; empty when none does by itself."""
        mine = left_out(question).get(item_id)
        if mine is not None:
            return mine
        if not question.catalog.may_show(item_id):
            return "available"
        place = question.catalog.breaks(question.book, question.asked, item_id)
        if place is not None:
            return question.book.names[place]
        return "quota" if question.book.quotas else ""

    def _failed(self, name: str, error: Exception) -> None:
        """A model broke at a request: it is counted and named in the log, and the next rung answers."""
        self.failures[name] += 1
        if self.failures[name] <= 10 or self.failures[name] % 1000 == 0:
            _log.error("model %s failed (%d times so far)", name, self.failures[name], exc_info=error)


def left_out(question: Question) -> dict[str, str]:
    """The visitor's own items that this slate leaves out, and why: item → `page`, `bought`, `viewed`, `cart`, `shown`.

    Bought and hidden items are the same to the live session.
    """
    request, session, seen = question.request, question.session, question.book.seen
    recipe = RECIPES.get(question.policy.model)
    found: dict[str, str] = {}
    if session is not None and seen.bought and not (recipe is not None and recipe.bought_too):
        found.update(dict.fromkeys(session.bought, "bought"))
    if seen.viewed and not (recipe is not None and recipe.alone):
        found.update(dict.fromkeys(question.items, "viewed"))
    if seen.cart or (recipe is not None and recipe.ask == "cart"):
        found.update(dict.fromkeys(cart_of(request, session, ()), "cart"))
    found.update(dict.fromkeys(question.repeats, "shown"))
    found.update(dict.fromkeys(request.exclude, "shown"))
    if question.page is not None:
        found[question.page] = "page"
    return found


def _quick(models: list[Model]) -> list[Model]:
    """Those that answer in no time; all of them where there is no such model."""
    return [model for model in models if model.name not in COSTLY] or models


def _explorer(question: Question) -> Explorer | None:
    return None if question.bundle is None else question.bundle.explorers.get(question.shown_name)


def _depth(question: Question) -> int:
    """How many candidates the first model gives where something chooses among them."""
    wanted = question.policy.chance.candidates if question.policy.explore != "none" else 0
    return max(AT_LEAST, DEEPER * question.request.k, wanted)


def _fresh(question: Question, hard_only: bool) -> Iterable[str]:
    """Items of which hardly anything is known, in another order for each slate, of those that may be shown."""
    if not question.policy.explore.endswith("-thompson"):
        return ()
    found = fresh(_explorer(question), seed_of(question.recommendation_id))
    return (item_id for item_id in found if _may(question, item_id, hard_only))


def _place(question: Question) -> tuple[str, str, str]:
    return (question.tenant, question.request.placement, f"{question.slot}/{question.shown_name}")


def _may(question: Question, item_id: str, hard_only: bool) -> bool:
    """Whether nothing speaks against one item: neither the catalog nor a filter."""
    catalog, deal = question.catalog, question.chosen.deal
    return (
        catalog.may_show(item_id)
        and (deal is None or deal.may(item_id))
        and (catalog.breaks(question.book, question.asked, item_id, hard_only=hard_only) is None)
    )


def _lets(question: Question, item_ids: Iterable[str], hard_only: bool) -> Iterable[str]:
    if not question.book.filters and question.chosen.deal is None:
        return item_ids
    return (item_id for item_id in item_ids if _may(question, item_id, hard_only))


def _good(question: Question, items: Iterable[SlateItem], hard_only: bool) -> Iterable[SlateItem]:
    return (item for item in items if _may(question, item.item_id, hard_only))


def _pins(question: Question, without: set[str]) -> dict[int, str]:
    """Position → item of the pins that may be shown: known to the catalog, and no hard rule against it."""
    return {
        place: item_id for place, item_id in question.book.pins.items()
        if item_id not in without and item_id in question.catalog.items and _may(question, item_id, hard_only=True)
    }  # fmt: skip


def _by_recipe(question: Question, recipe: Recipe, rungs: list[Rung], hard_only: bool) -> list[Rung]:
    """The rungs of a slate with a name of its own: the first one is asked and filtered as its recipe says."""
    catalog, name = question.catalog, question.policy.model
    if recipe.model == Viewed.name:
        trail = Viewed(question.items)
        own = Listed(trail.item_ids, lambda item_id: _may(question, item_id, hard_only))
        return [Rung(trail, own, source=name, alone=True), *rungs]
    if not rungs or rungs[0].model.name != recipe.model:
        return rungs
    first = rungs[0]._replace(source=name, alone=recipe.alone)
    if recipe.ask == "page" and question.page is not None:
        first = first._replace(session=[question.page])
    elif recipe.ask == "cart":
        first = first._replace(session=cart_of(question.request, question.session, question.items))
    if recipe.in_category:
        newest = [catalog.items.get(item_id) for item_id in question.items[-CATEGORIES_OF:]]
        categories = {each for item in newest if item is not None for each in item.categories}
        if not categories:
            return rungs
        first = first._replace(availability=Within(first.availability, catalog.within(first.model, categories)))
    return [first, *rungs[1:]]


def _removed(question: Question, rungs: list[Rung], quotas: Quotas | None) -> dict[str, int]:
    """Rule → how many items it took out by itself."""
    book = question.book
    first = rungs[0].availability if rungs else None
    removed = dict(first.removed()) if isinstance(first, Ruled) else {}
    if quotas is not None:
        removed.update({book.names[place]: quotas.removed.get(place, 0) for place, _ in book.quotas})
    for reason in left_out(question).values():
        removed[reason] = removed.get(reason, 0) + 1
    return removed


def _anything(item_id: str) -> bool:
    del item_id
    return True
