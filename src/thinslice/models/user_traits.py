"""What a shop says of its users, as traits that many of them share: loyalty tier, place, attributes."""

from collections import Counter
from collections.abc import Sequence

from thinslice.records import User

FEWEST = 5
"""A trait of fewer users than this says more about who they are than about what they like, and is left out."""

LONG_TEXT = 60
"""Letters: an attribute longer than this is no trait."""


def traits_of(user: User) -> list[str]:
    """Names of a user's traits; the place is known to a degree of latitude and longitude, about 100 km.

    >>> from datetime import UTC, datetime
    >>> traits_of(User(tenant="shop", user_id="u", updated_at=datetime(2026, 1, 1, tzinfo=UTC), loyalty_tier="gold",
    ...                latitude=48.1, longitude=11.6, attributes={"student": True}))
    ['tier=gold', 'place=48,12', 'student=True']
    """
    found = []
    if user.loyalty_tier:
        found.append(f"tier={user.loyalty_tier}")
    if user.latitude is not None and user.longitude is not None:
        found.append(f"place={round(user.latitude)},{round(user.longitude)}")
    for name, value in user.attributes.items():
        found.extend(
            f"{name}={each}"
            for each in (value if isinstance(value, list) else [value])
            if isinstance(each, str | int | bool) and 0 < len(str(each)) <= LONG_TEXT
        )
    return list(dict.fromkeys(found))


def shared_traits(users: Sequence[User]) -> tuple[list[str], dict[str, list[int]]]:
    """The traits that enough users share but not all, and user id → codes of its traits; consent decides who counts."""
    each = {user.user_id: traits_of(user) for user in users if user.consent == "personalization"}
    count = Counter(name for names in each.values() for name in names)
    kept = sorted(name for name, times in count.items() if FEWEST <= times < len(each))
    code = {name: number for number, name in enumerate(kept)}
    return kept, {user: [code[name] for name in names if name in code] for user, names in each.items()}
