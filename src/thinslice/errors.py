"""Every error that Thinslice raises, one tree, each with its numbers and what to do.

ThinsliceError
├── BadInput                what a caller sent or wrote is wrong (exit code 2, HTTP 400)
│   ├── BadSettings         thinslice.toml or an experiment file does not hold together
│   ├── BadRecord           one event, item or order is wrong: code, field, hint
│   ├── TooLarge            a body, batch or file is over its limit (HTTP 413)
│   └── UnknownName         a tenant, model, experiment or metric that does not exist (HTTP 404)
├── NotAllowed              a key is missing, wrong, revoked or too weak (HTTP 401 or 403)
├── StoreError              what is on the disk cannot be used
│   ├── LogFull             the disk is full: nothing was acknowledged (HTTP 503)
│   └── Corrupt             a checksum does not match
├── NotReady                the service cannot answer yet, and says why (HTTP 503)
└── StatisticsError         a number cannot be computed from this data
    └── TooFewUnits         needs at least n units, got m
"""


class ThinsliceError(Exception):
    """The root: catch it to catch everything that Thinslice raises on purpose.

    Args:
        message: One sentence with the numbers in it.
        hint: What the reader can do about it, one sentence, may be empty.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class BadInput(ThinsliceError):
    """What a caller sent or wrote is wrong; the message says what, where, and what to do."""


class BadSettings(BadInput):
    """A settings or experiment file does not hold together."""


class BadRecord(BadInput):
    """One record of a batch or file is wrong.

    Args:
        code: A stable word for programs, such as `missing_field`.
        message: One sentence with the value in it.
        field: The field that is wrong, `items[2].price_minor` for instance; empty when it is the whole record.
        hint: What to send instead.
    """

    def __init__(self, code: str, message: str, *, field: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code
        self.field = field


class TooLarge(BadInput):
    """A body, batch or file is over its limit."""


class UnknownName(BadInput):
    """A tenant, model, experiment or metric that does not exist."""


class NotAllowed(ThinsliceError):
    """A key is missing, wrong, revoked or too weak for what was asked.

    Args:
        code: `missing_key`, `unknown_key`, `revoked_key`, `foreign_origin` or `weak_key`.
        message: One sentence.
        hint: What to do.
    """

    def __init__(self, code: str, message: str, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.code = code


class StoreError(ThinsliceError):
    """What is on the disk cannot be used."""


class LogFull(StoreError):
    """The disk is full; nothing was acknowledged, so the sender may retry."""


class Corrupt(StoreError):
    """A checksum does not match what is on the disk."""


class NotReady(ThinsliceError):
    """The service cannot answer yet; the message says what it waits for."""


class StatisticsError(ThinsliceError):
    """A number cannot be computed from this data."""


class TooFewUnits(StatisticsError):
    """Needs at least `needed` units, got `got`.

    >>> str(TooFewUnits(needed=2, got=1))
    'needs at least 2 units, got 1'
    """

    def __init__(self, *, needed: int, got: int, what: str = "units") -> None:
        super().__init__(f"needs at least {needed} {what}, got {got}")
        self.needed = needed
        self.got = got
