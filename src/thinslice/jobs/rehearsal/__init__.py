"""Rehearsals of experiments: shoppers whose truth is known, everything else as in production."""

from thinslice.jobs.rehearsal.trials import Play, Trial, trial_of

__all__ = ["Play", "Trial", "trial_of"]
