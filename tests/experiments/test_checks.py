from datetime import UTC, datetime

import numpy as np

from thinslice.experiments.analyze import analyze
from thinslice.experiments.evidence import Units
from thinslice.records import Experiment, Metric, Variant

NOW = datetime(2026, 3, 1, tzinfo=UTC)


def test_a_variant_with_a_share_of_zero_hides_no_mismatch():
    """5,170 to 4,830: p = .0007 with one degree of freedom, .003 with two."""
    variants = [Variant(name=name, policy="", weight=weight) for name, weight in (("a", 0.5), ("b", 0.5), ("c", 0.0))]
    plan = Experiment(
        name="test", tenant="", variants=variants, metrics=[Metric(name="money", numerator="money", role="goal")]
    )
    units = Units(np.repeat(["a", "b"], [5_170, 4_830]), {"money": np.arange(10_000) % 7})
    got = analyze(units, plan, NOW)
    assert not got.checks[0].passed
    assert got.decision.action == "invalid"
