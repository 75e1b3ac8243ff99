"""Rules: a mask says what each item says by itself, hard rules are never broken, quotas hold in every order."""

import math
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thinslice.errors import BadSettings
from thinslice.recommend import Availability
from thinslice.recommend.masks import Facts, Listed, Ruled, RuleMasks, Within
from thinslice.recommend.rules import Asked, Quotas, RuleBook, asked_of, is_hard
from thinslice.records import Item
from thinslice.settings import (
    AgeRule,
    BoostRule,
    DistanceRule,
    ExcludeRule,
    IncludeRule,
    PinRule,
    PriceRule,
    QuotaRule,
    SeenRule,
    parse_settings,
)

NOW = datetime(2026, 5, 1, tzinfo=UTC)
IDS = [f"i{n}" for n in range(12)]


def item(item_id, **fields):
    return Item(tenant="shop", item_id=item_id, updated_at=NOW, **fields)


items = st.lists(
    st.builds(
        item,
        st.sampled_from(IDS),
        categories=st.lists(st.sampled_from("abc"), max_size=2),
        brand=st.none() | st.sampled_from("xy"),
        price_minor=st.none() | st.integers(0, 20),
        currency=st.sampled_from(["EUR", "EUR", "USD"]),
        latitude=st.none() | st.floats(-90, 90),
        longitude=st.none() | st.floats(-180, 180),
        attributes=st.dictionaries(st.sampled_from(["min_age", "color"]), st.sampled_from([6, 18, "red"])),
    ),
    max_size=12,
)
rules = st.lists(
    st.one_of(
        st.builds(IncludeRule, categories=st.just(["a", "b"]), hard=st.booleans()),
        st.builds(ExcludeRule, brands=st.just(["x"])),
        st.builds(PriceRule, min_minor=st.integers(0, 10), max_minor=st.integers(10, 20), hard=st.booleans()),
        st.builds(PriceRule, max_share=st.floats(0.1, 3), hard=st.booleans()),
        st.builds(DistanceRule, max_km=st.floats(1, 30_000)),
        st.builds(AgeRule),
    ),
    max_size=4,
)
asked = st.builds(
    Asked,
    st.none() | st.floats(0, 20),
    st.none() | st.floats(0, 30),
    st.none() | st.tuples(st.floats(-90, 90), st.floats(-180, 180)),
)


@settings(max_examples=80, deadline=None)
@given(items, rules, asked, st.booleans(), st.integers(0, 20))
def test_a_mask_says_of_all_items_what_each_says_by_itself_however_the_catalog_came_about(all_, rs, q, hard, cut):
    book, facts = RuleBook(rs), Facts(rs, "EUR")
    availability = Availability(IDS, {})
    facts.update(all_[:cut])
    masks = RuleMasks(availability, facts, book)
    masks.mask(q)
    facts.update(all_[cut:])
    masks.update(all_[cut:])
    mask = masks.mask(q, hard_only=hard)
    for code, item_id in enumerate(IDS):
        assert mask[code] == (facts.breaks(book, q, item_id, hard_only=hard) is None)


@settings(max_examples=50, deadline=None)
@given(items, rules, asked)
def test_keeping_the_hard_rules_only_lets_more_through_and_breaks_none_of_them(all_, rs, q):
    book, facts = RuleBook(rs), Facts(rs, "EUR")
    facts.update(all_)
    masks = RuleMasks(Availability(IDS, {}), facts, book)
    every, hard = masks.mask(q), masks.mask(q, hard_only=True)
    assert not (every & ~hard).any()
    only = RuleBook([rule for rule in rs if is_hard(rule)])
    again = Facts(only.rules, "EUR")
    again.update(all_)
    assert np.array_equal(hard, RuleMasks(Availability(IDS, {}), again, only).mask(q))


def test_what_each_filter_takes_out_by_itself_is_counted_among_what_is_available():
    rs = [PriceRule(name="cheap", max_minor=10), ExcludeRule(brands=["x"])]
    facts = Facts(rs, "EUR")
    facts.update([item("a", price_minor=5, brand="x"), item("b", price_minor=50), item("c", price_minor=50)])
    masks = RuleMasks(Availability("abc", {"a": True, "b": True, "c": False}), facts, RuleBook(rs))
    assert masks.removed(Asked()) == {"cheap": 1, "exclude-2": 1}
    assert masks.mask(Asked()).tolist() == [False, False, False]


def test_what_a_rule_asks_for_must_be_known_and_what_it_forbids_must_be_known_too():
    unknown = item("u")
    for rule, passes in [
        (PriceRule(max_minor=10), False), (IncludeRule(categories=["a"]), False), (ExcludeRule(categories=["a"]), True),
        (DistanceRule(max_km=1), True), (AgeRule(), True),
    ]:  # fmt: skip
        facts = Facts([rule], "EUR")
        facts.update([unknown])
        found = facts.breaks(RuleBook([rule]), Asked(age=3, place=(0, 0)), "u") is None
        never_heard = facts.breaks(RuleBook([rule]), Asked(age=3, place=(0, 0)), "never heard of") is None
        assert (found, never_heard) == (passes, passes), rule


def test_berlin_to_potsdam_is_27_kilometers():
    facts = Facts([DistanceRule(max_km=28), DistanceRule(max_km=26)], "EUR")
    facts.update([item("potsdam", latitude=52.3906, longitude=13.0645)])
    berlin = Asked(place=(52.5200, 13.4050))
    assert facts.breaks(RuleBook([facts.rules[0]]), berlin, "potsdam") is None
    assert facts.breaks(RuleBook(facts.rules), berlin, "potsdam") == 1
    assert facts.breaks(RuleBook(facts.rules), Asked(), "potsdam") is None


def test_without_an_age_nothing_with_a_least_age_is_shown():
    facts = Facts([AgeRule()], "EUR")
    facts.update([item("wine", attributes={"min_age": 18}), item("tea")])
    book = RuleBook(facts.rules)
    assert [facts.breaks(book, Asked(age=age), "wine") for age in (None, 17, 18)] == [0, 0, None]
    assert facts.breaks(book, Asked(), "tea") is None


def test_a_relative_price_follows_the_item_of_the_page_and_its_currency():
    page = item("p", price_minor=1000)
    facts = Facts([PriceRule(min_share=0.5, max_share=1.5)], "EUR")
    facts.update([item("near", price_minor=1500), item("far", price_minor=1501),
                  item("dollars", price_minor=1000, currency="USD")])  # fmt: skip
    book = RuleBook(facts.rules)
    here = asked_of({}, page, "EUR")
    assert [facts.breaks(book, here, each) for each in ("near", "far", "dollars")] == [None, 0, 0]
    assert facts.breaks(book, asked_of({}, None, "EUR"), "far") is None


@pytest.mark.parametrize("value", ["18", True, math.nan, None, [18], math.inf])
def test_an_age_that_is_no_number_is_no_age(value):
    assert asked_of({"age": value}, None, "EUR").age is None


@settings(max_examples=50, deadline=None)
@given(items, st.permutations(IDS), st.integers(1, 3), st.sampled_from(["brand", "category", "color"]))
def test_a_quota_holds_whatever_comes_first_and_passes_over_nothing_without_need(all_, order, most, by):
    catalog = {each.item_id: each for each in all_}
    quotas = Quotas([(0, QuotaRule(by=by, most=most))], catalog)
    kept = [each for each in order if quotas.admit(each)]

    def groups(item_id):
        found = catalog.get(item_id)
        if found is None:
            return []
        if by == "category":
            return list(dict.fromkeys(found.categories))
        value = found.brand if by == "brand" else found.attributes.get("color")
        return [value] if value is not None else []

    counts = {}
    for each in kept:
        for group in groups(each):
            counts[group] = counts.get(group, 0) + 1
    assert all(count <= most for count in counts.values())
    assert quotas.removed.get(0, 0) == len(order) - len(kept)
    for each in set(order) - set(kept):
        assert any(counts.get(group, 0) == most for group in groups(each))


def test_only_the_rules_of_a_placement_hold_there_and_the_last_word_on_seen_items_counts():
    rs = [ExcludeRule(brands=["x"], placement="home"), SeenRule(viewed=True), SeenRule(bought=False, placement="home"),
          PinRule(item_id="a"), PinRule(item_id="b"), BoostRule(brands=["y"], factor=2)]  # fmt: skip
    home, other = RuleBook(rs, "home"), RuleBook(rs)
    assert (home.filters, other.filters) == ([0], [])
    assert (home.seen.bought, other.seen.viewed) == (False, True)
    assert other.pins == {0: "a"}
    assert (home.deep, RuleBook([]).deep) == (True, False)


def test_a_filter_of_one_request_shares_the_mask_and_leaves_it_as_it_is():
    rs = [ExcludeRule(brands=["x"])]
    facts = Facts(rs, "EUR")
    facts.update([item("a", brand="x")])
    masks = RuleMasks(Availability("abc", {}), facts, RuleBook(rs))
    one, two = Ruled(masks, Asked()), Ruled(masks, Asked())
    assert one.allowed([]) is two.allowed(["never heard of"])
    assert one.allowed(["b"]).tolist() == [False, False, True]
    assert two.allowed([]).tolist() == [False, True, True]
    assert Listed(["c", "a"], "abc".__contains__).allowed(["c"]).tolist() == [False, True]


def test_every_filter_counts_what_it_lets_through():
    rs = [ExcludeRule(brands=["x"])]
    facts = Facts(rs, "EUR")
    facts.update([item("a", brand="x")])
    availability = Availability("abcd", {})
    masks = RuleMasks(availability, facts, RuleBook(rs))
    ruled = Ruled(masks, Asked())
    narrow = Within(ruled, np.array([True, True, False, False]))
    for each in (availability, ruled, narrow, Listed("abc", "ab".__contains__)):
        for without in ([], ["b"], ["b", "b", "nobody"], ["a", "c"]):
            assert each.count(without) == np.count_nonzero(each.allowed(without))
    facts.update([item("a", brand="y")])
    assert ruled.count([]) == 4


@pytest.mark.parametrize(
    ("rule", "says"),
    [
        ('kind = "price"', "needs min_minor or max_minor"),
        ('kind = "price"\nmin_minor = 5\nmax_share = 2.0', "not both kinds"),
        ('kind = "price"\nmin_minor = 5\nmax_minor = 4', "holds nothing"),
        ('kind = "exclude"', "chooses no items"),
        ('kind = "boost"\nbrands = ["x"]\nfactor = 0.0', "factor must be positive"),
        ('kind = "distance"\nmax_km = -1.0', "max_km must be positive"),
        ('kind = "pin"\nitem_id = "a"\nposition = -1', "position counts from 0"),
        ('kind = "quota"\nmost = 0', "at least 1"),
        ('kind = "magic"', "Invalid value 'magic'"),
        ('kind = "quota"\nmost = 1\nwhat = 2', "there is no setting tenants.shop.rules[0].what"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_with_its_place(rule, says):
    with pytest.raises(BadSettings, match=r"rules\[0\]") as refused:
        parse_settings(f"[[tenants.shop.rules]]\n{rule}")
    assert says in str(refused.value)


def test_every_field_of_every_rule_and_every_kind_stands_on_the_page_of_settings():
    page = (Path(__file__).parents[2] / "docs" / "reference" / "settings.md").read_text(encoding="utf-8")
    section = page.split("## Rules")[1]
    for kind in (
        IncludeRule, ExcludeRule, PriceRule, DistanceRule, AgeRule, SeenRule, BoostRule, PinRule, QuotaRule,
    ):  # fmt: skip
        names = [kind.__struct_config__.tag, *(field.name for field in msgspec.structs.fields(kind))]
        assert [name for name in names if f"`{name}`" not in section] == []


def test_more_rules_than_bits_are_refused_with_both_numbers():
    with pytest.raises(BadSettings, match="at most 64 rules, got 65"):
        parse_settings('[[tenants.shop.rules]]\nkind = "age"\n' * 65)
