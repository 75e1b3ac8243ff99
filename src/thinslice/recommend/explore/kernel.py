"""The compiled inner loops of exploration: draw many rankings, serve one of them, count how often it was so.

Plain arrays in and out; the random numbers come from the seed alone (SplitMix64: Steele, Lea and Flood, 2014), so that
a slate can be drawn again from its recommendation id. Rankings lie side by side: one instruction serves several.
"""

import numpy as np
from numba import njit

CELLS = 32
"""The quantiles of a posterior are kept at every 32nd; the last cell, from which most choices come, is cut finer."""

TAIL = 4
"""So many more, each nearer to 1 by a factor of 4: at 1 - 2 ** -7, - 9, - 11, - 13."""


@njit(nogil=True, cache=True)
def uniform(state):  # type: ignore[no-untyped-def] # numba infers these
    """The next number in [0, 1) and the next state."""
    state = state + np.uint64(0x9E3779B97F4A7C15)
    z = state
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return np.float64(z >> np.uint64(11)) * (1.0 / 9007199254740992.0), state


@njit(nogil=True, cache=True)
def table_scores(quantile, row, factor, state, score):  # type: ignore[no-untyped-def]
    """Draws each candidate's click rate from its table, for each ranking anew.

    Between two quantiles a draw is linear; in the last cell linear in the logarithm of what is left to 1, as the tails
    of a Beta nearly are.

    Args:
        quantile: Shape (states, CELLS + TAIL), float32, rising along a row.
        row: Shape (candidates,), int32, the table of each.
        factor: Shape (candidates,), float32: what a draw is multiplied by.
        state: uint64.
        score: Filled: shape (candidates, rankings), float32.
    """
    for i in range(score.shape[0]):
        table = quantile[row[i]]
        for m in range(score.shape[1]):
            u, state = uniform(state)
            x = u * CELLS
            cell = int(x)
            if cell == CELLS - 1:
                x = cell + min((-np.log2(1.0 - u) - 5.0) / 2.0, TAIL - 1e-6)
                cell = int(x)
            low = table[cell]
            score[i, m] = (low + np.float32(x - cell) * (table[cell + 1] - low)) * factor[i]


@njit(nogil=True, cache=True, fastmath=True)
def linear_scores(bank, feature, factor, least, state, score):  # type: ignore[no-untyped-def]
    """Draws weights from a bank of posterior draws, one a ranking; a candidate's rate is weights · features.

    Args:
        bank: Shape (features, draws), float32.
        feature: Shape (candidates, features), float32.
        factor: Shape (candidates,), float32.
        least: The smallest rate: a line may go below zero.
        state: uint64.
        score: Filled: shape (candidates, rankings), float32.
    """
    features, rankings = bank.shape[0], score.shape[1]
    weight = np.empty((features, rankings), np.float32)
    for m in range(rankings):
        u, state = uniform(state)
        draw = int(u * bank.shape[1])
        for f in range(features):
            weight[f, m] = bank[f, draw]
    for i in range(score.shape[0]):
        rate = score[i]
        rate[:] = np.float32(0.0)
        for f in range(features):
            x = feature[i, f]
            if x != 0:
                for m in range(rankings):
                    rate[m] += weight[f, m] * x
        for m in range(rankings):
            rate[m] = max(rate[m], least) * factor[i]


@njit(nogil=True, cache=True)
def best(score, served, order):  # type: ignore[no-untyped-def]
    """Fills `order` with the places of the largest scores of one ranking, the largest first; of equal ones the earlier.

    Args:
        score: Shape (candidates, rankings), float32.
        served: Which ranking.
        order: Filled: shape (places,), int32.
    """
    left = score[:, served].copy()
    for j in range(order.size):
        at = 0
        for i in range(1, left.size):
            if left[i] > left[at]:
                at = i
        order[j] = at
        left[at] = -np.inf


@njit(nogil=True, cache=True)
def shares(score, order, chance):  # type: ignore[no-untyped-def]
    """In which share of the rankings each candidate of `order` stands at its place.

    Args:
        score: Shape (candidates, rankings), float32.
        order: Shape (places,), int32.
        chance: Filled: shape (places,), float64.
    """
    n, rankings = score.shape
    above = np.empty(rankings, np.int32)
    for j in range(order.size):
        own = order[j]
        mine = score[own]
        above[:] = 0
        for i in range(n):
            other = score[i]
            if i < own:
                for m in range(rankings):
                    above[m] += other[m] >= mine[m]
            elif i > own:
                for m in range(rankings):
                    above[m] += other[m] > mine[m]
        hits = 0
        for m in range(rankings):
            hits += above[m] == j
        chance[j] = hits / rankings
