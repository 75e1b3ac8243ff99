"""What GrowthBook's gbstats and SDK answer to questions that ours are asked too; its old numpy needs a venv of its own.

    python -m venv ../growthbook && ../growthbook/bin/pip install gbstats==0.8.0 growthbook==4.0.0
    ../growthbook/bin/python tests/oracles/growthbook_numbers.py > tests/oracles/growthbook.json

Inputs are plain formulas, and what is handed over are their sums, so both sides start from the same digits.
"""

import json
from importlib.metadata import version

import numpy as np
from gbstats.frequentist.tests import (
    FrequentistConfig,
    OneSidedTreatmentGreaterTTest,
    SequentialConfig,
    SequentialTwoSidedTTest,
    TwoSidedTTest,
)
from gbstats.models.statistics import (
    ProportionStatistic,
    QuantileStatistic,
    RatioStatistic,
    RegressionAdjustedStatistic,
    SampleMeanStatistic,
    compute_theta,
)
from gbstats.utils import check_srm
from growthbook.core import gbhash
from scipy.stats import norm

ARMS = ((400, 10.0, 1.3, 0.7), (500, 10.8, 1.9, 0.3))
COUNTS = ([(520, 480), (0.5, 0.5)], [(44_700, 45_489), (0.5, 0.5)], [(330, 301, 369), (0.3, 0.3, 0.4)],
          [(520, 0, 480), (0.5, 0.0, 0.5)])  # fmt: skip
SEEDS = ("", "seed", "shop:ranker", "ümläut", "90850943850283058242805")
VALUES = ("a", "visitor-1", "日本語", "", "0193a1b2-0000-7000-8000-000000000001", '___)((*":&')


def rows(n, height, turn, before):
    """One variant's units: an outcome, what it is divided by or was before, and whether it was large."""
    at = np.arange(n)
    y = np.abs(np.sin(at * turn)) * height
    return {"y": y, "x": np.abs(np.cos(at * before)) + 0.1 * y, "big": (y > 8).astype(float)}


def sums(of):
    """All that a test needs of a variant."""
    names = list(of)
    data = np.stack([of[name] for name in names])
    return {"names": names, "n": data.shape[1], "sums": data.sum(axis=1).tolist(), "products": (data @ data.T).tolist()}


def statistic(of, name):
    """A mean as gbstats wants it."""
    return SampleMeanStatistic(n=of[name].size, sum=float(of[name].sum()), sum_squares=float(of[name] @ of[name]))


def statistics(arms):
    """Kind → the two variants."""
    product = [float(of["y"] @ of["x"]) for of in arms]
    n = [of["y"].size for of in arms]
    adjusted = [
        RegressionAdjustedStatistic(size, statistic(of, "y"), statistic(of, "x"), both, 0.0)
        for of, both, size in zip(arms, product, n, strict=True)
    ]
    theta = compute_theta(*adjusted)
    for each in adjusted:
        each.theta = theta
    return {
        "mean": [statistic(of, "y") for of in arms],
        "ratio": [
            RatioStatistic(size, statistic(of, "y"), statistic(of, "x"), both)
            for of, both, size in zip(arms, product, n, strict=True)
        ],
        "cuped": adjusted,
        "proportion": [ProportionStatistic(of["big"].size, float(of["big"].sum())) for of in arms],
    }


def answer(test):
    """Effect, interval, p-value."""
    found = test.compute_result()
    return {"effect": found.expected, "ci": [finite(end) for end in found.ci], "pvalue": found.p_value}


def finite(end):
    return end if np.isfinite(end) else None


def quantile(of, share):
    """The median and its like, from order statistics at the ends of the share's interval."""
    data = np.sort(of["y"])
    half = norm.ppf(0.975) * np.sqrt(share * (1 - share) / data.size)
    low, at, high = np.quantile(data, [share - half, share, share + half])
    got = QuantileStatistic(data.size, data.size, share, float(at), float(low), float(high))
    return {"share": share, "at": got.mean, "variance": got.variance}


def main():
    """Prints the table."""
    arms = [rows(*arm) for arm in ARMS]
    effects = {}
    for name, (control, treatment) in statistics(arms).items():
        absolute = {"difference_type": "absolute"}
        effects[name] = {
            "two_sided": answer(TwoSidedTTest(control, treatment, FrequentistConfig(**absolute))),
            "alpha_001": answer(TwoSidedTTest(control, treatment, FrequentistConfig(alpha=0.01, **absolute))),
            "greater": answer(OneSidedTreatmentGreaterTTest(control, treatment, FrequentistConfig(**absolute))),
            "relative": answer(TwoSidedTTest(control, treatment, FrequentistConfig(difference_type="relative"))),
            **{
                f"sequential_{tuned_for}": answer(
                    SequentialTwoSidedTTest(
                        control, treatment, SequentialConfig(sequential_tuning_parameter=tuned_for, **absolute)
                    )
                )
                for tuned_for in (5_000, 900)
            },
        }
    table = {
        "made_by": {name: version(name) for name in ("gbstats", "growthbook", "numpy", "scipy")},
        "rows": ARMS,
        "arms": [sums(of) for of in arms],
        "effects": effects,
        "quantiles": [quantile(of, share) for of, share in zip(arms, (0.5, 0.9), strict=True)],
        "sample_ratio": [
            {"units": list(units), "shares": list(shares), "pvalue": float(check_srm(list(units), list(shares)))}
            for units, shares in COUNTS
        ],
        "hash": [[seed, value, gbhash(seed, value, 2)] for seed in SEEDS for value in VALUES],
    }
    print(json.dumps(table, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
