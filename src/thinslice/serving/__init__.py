"""Serving: request time, where an event changes the very next slate."""

from thinslice.serving.catalog import CatalogView
from thinslice.serving.experiments import (
    BrokenExperiment,
    ExperimentFiles,
    read_experiment_file,
    read_experiments,
)
from thinslice.serving.intake import Intake, IntakeResult
from thinslice.serving.issued import RecommendationIds, read_secret
from thinslice.serving.memory import Bundle
from thinslice.serving.models import ModelHost
from thinslice.serving.recommender import Recommender

__all__ = [
    "BrokenExperiment", "Bundle", "CatalogView", "ExperimentFiles", "Intake", "IntakeResult", "ModelHost",
    "RecommendationIds", "Recommender", "read_experiment_file", "read_experiments", "read_secret",
]  # fmt: skip
