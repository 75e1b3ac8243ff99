"""What statsmodels answers to questions that ours are asked too.

    python -m venv ../statsmodels && ../statsmodels/bin/pip install statsmodels==0.15.0
    ../statsmodels/bin/python tests/oracles/statsmodels_numbers.py > tests/oracles/statsmodels.json

Inputs are plain formulas, so that both sides can make them.
"""

import json
from importlib.metadata import version

import numpy as np
from statsmodels.api import OLS
from statsmodels.stats.meta_analysis import combine_effects
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestIndPower
from statsmodels.stats.weightstats import CompareMeans, DescrStatsW

ARMS = ((400, 10.0, 1.3, 0.7), (500, 10.8, 1.9, 0.3))
CLUSTERS, SIZE = 60, 9
PVALUES = [0.001, 0.008, 0.039, 0.041, 0.042, 0.06, 0.074, 0.205, 0.212, 0.216]
EFFECTS = [0.34, 0.12, -0.11, 0.28, 0.05], [0.04, 0.09, 0.08, 0.11, 0.02]
PLANS = ((0.25, 253, 1.0), (0.1, 1_000, 3.0), (0.02, 40_000, 1.0))


def rows(n, height, turn, before):
    """One variant's units: an outcome and what it was before."""
    at = np.arange(n)
    y = np.abs(np.sin(at * turn)) * height
    return y, np.abs(np.cos(at * before)) + 0.1 * y


def welch(arms, alpha):
    """The unequal-variances test and its interval."""
    of = CompareMeans(*(DescrStatsW(arm) for arm in reversed(arms)))
    _, pvalue, df = of.ttest_ind(usevar="unequal")
    return {"alpha": alpha, "ci": [float(end) for end in of.tconfint_diff(alpha, usevar="unequal")],
            "pvalue": float(pvalue), "df": float(df)}  # fmt: skip


def ratio(arms):
    """A ratio of sums and its standard error: that of the mean residual, divided by the mean of x."""
    found = []
    for y, x in arms:
        got = OLS(y - (y.sum() / x.sum()) * x, np.ones(y.size)).fit(cov_type="HC1")
        found.append({"mean": float(y.sum() / x.sum()), "se": float(got.bse[0] / x.mean())})
    return found


def clusters():
    """Units of clusters, half of them treated: the difference of means with clustered errors, without a correction."""
    at = np.arange(CLUSTERS * SIZE)
    cluster = at // SIZE
    treated = (cluster % 2).astype(float)
    y = np.sin(cluster * 1.7) + np.cos(at * 0.9) + 0.3 * treated
    got = OLS(y, np.column_stack([np.ones(y.size), treated])).fit(
        cov_type="cluster", cov_kwds={"groups": cluster, "use_correction": False}
    )
    return {"clusters": CLUSTERS, "size": SIZE, "effect": float(got.params[1]), "se": float(got.bse[1])}


def main():
    """Prints the table."""
    arms = [rows(*arm) for arm in ARMS]
    outcome = [y for y, _ in arms]
    corrected = {name: multipletests(PVALUES, method=name)[1].tolist() for name in ("holm", "fdr_bh")}
    pooled = {
        name: combine_effects(np.array(EFFECTS[0]), np.array(EFFECTS[1]) ** 2, method_re=name)
        for name in ("chi2", "iterated")
    }
    power = TTestIndPower()
    table = {
        "made_by": {name: version(name) for name in ("statsmodels", "numpy", "scipy")},
        "rows": ARMS,
        "welch": [welch(outcome, alpha) for alpha in (0.05, 0.01)],
        "ratio": ratio(arms),
        "clusters": clusters(),
        "pvalues": PVALUES, "corrected": corrected,
        "effects": EFFECTS, "q": float(pooled["chi2"].q), "i_squared": float(pooled["chi2"].i2),
        "tau_squared": {name: float(of.tau2) for name, of in pooled.items()},
        "power": [
            [size, n, share, float(power.power(size, n, 0.05, ratio=share, alternative="two-sided"))]
            for size, n, share in PLANS
        ],
    }  # fmt: skip
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    main()
