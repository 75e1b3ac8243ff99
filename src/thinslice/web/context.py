"""What every page and route of one worker may use: the stores, the recommender, the intake, the keys."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thinslice.serving.experiments import ExperimentFiles
from thinslice.serving.intake import Intake, LogExposures
from thinslice.serving.issued import SECRET_FILE, RecommendationIds, read_secret
from thinslice.serving.models import ModelHost
from thinslice.serving.recommender import Recommender
from thinslice.serving.shadow import LogShadows, Shadows
from thinslice.settings import Settings, Workspace
from thinslice.store.artifacts import FileArtifacts
from thinslice.store.keys import Keys
from thinslice.store.live import LiveDB
from thinslice.store.log import GroupCommit, SegmentWriter
from thinslice.web.counters import Counters, counters_folder, last_minute


@dataclass(frozen=True, kw_only=True)
class Context:
    """One worker's belongings.

    Attributes:
        workspace: Where everything lies.
        settings: As read at the start.
        live: Live sessions and catalog, shared by all workers.
        artifacts: Trained models.
        recommender: Answers with slates.
        intake: Takes events, items and orders.
        keys: Who may do what.
        worker_name: Stands in the header X-Worker.
        counters: What this worker counts.
        commit: The worker's log.
        models: The trained models that answer.
        shadows: Lets policies answer before their launch.
        metrics_folder: The folder of the Prometheus files that all workers share, or None in a single process.
    """

    workspace: Workspace
    settings: Settings
    live: LiveDB
    artifacts: FileArtifacts
    recommender: Recommender
    intake: Intake
    keys: Keys
    worker_name: str
    counters: Counters
    commit: GroupCommit
    models: ModelHost
    shadows: Shadows
    metrics_folder: Path | None = None

    def live_summary(self, tenant: str, *, now: float, events: int = 20) -> dict[str, Any]:
        """What the Live page shows of one tenant: the last minute over all workers, and the newest events.

        Args:
            tenant: Whose.
            now: Unix seconds.
            events: How many of the newest events.

        Returns:
            The keys of `thinslice.web.counters.last_minute`, and `last_events`, newest first.
        """
        summary = last_minute(counters_folder(self.workspace), tenant, now)
        summary["last_events"] = self.live.recent(tenant, limit=events)
        return summary


def open_context(
    workspace: Workspace, settings: Settings, worker_name: str, *, metrics_folder: Path | None = None
) -> Context:
    """Opens everything that one worker needs; models arrive a moment later, in a thread of their own.

    Args:
        workspace: Must hold thinslice.toml.
        settings: As read from it.
        worker_name: Names this worker's log segments, its counters and its answers.
        metrics_folder: See `Context`.
    """
    live = LiveDB(workspace.live, settings.live.map_mb)
    artifacts = FileArtifacts(workspace.models)
    commit = GroupCommit(SegmentWriter(workspace.log, worker_name))
    experiments = ExperimentFiles(workspace.experiments)
    ids = RecommendationIds(read_secret(workspace.root / SECRET_FILE))
    models = ModelHost(artifacts, settings.tenants, memory_mb=settings.models.memory_mb)
    models.start()
    recommender = Recommender(settings, live, models, experiments, ids, LogExposures(commit))
    shadows = Shadows(experiments, models, recommender, LogShadows(commit))
    recommender.after_answering(shadows.note)
    return Context(
        workspace=workspace,
        settings=settings,
        live=live,
        artifacts=artifacts,
        recommender=recommender,
        intake=Intake(settings, live, commit, experiments, ids),
        keys=Keys(workspace.keys_file),
        worker_name=worker_name,
        counters=Counters(counters_folder(workspace), worker_name),
        metrics_folder=metrics_folder,
        commit=commit,
        models=models,
        shadows=shadows,
    )


def close_context(context: Context) -> None:
    """Makes everything durable and closes it."""
    context.models.close()
    context.commit.close()
    context.live.close()
