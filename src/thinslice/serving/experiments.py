"""The experiments that run now: their files are read again when they change, so that start and stop need no restart."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from thinslice.errors import BadInput, BadSettings
from thinslice.experiments import assign, is_running, parse_experiment, unit_id_of
from thinslice.records import Experiment, ExperimentExposure

REFRESH_S = 0.5
"""So often (seconds) the folder is looked at."""

_log = logging.getLogger("thinslice.serving")


class BrokenExperiment(NamedTuple):
    """An experiment's file that cannot be read: whose it is, the name it would have, where it lies, and why not."""

    tenant: str
    name: str
    file: str
    reason: str


def read_experiment_file(path: Path, tenant: str) -> Experiment:
    """The experiment in one file.

    Raises:
        BadSettings: The file cannot be read or does not hold together; the message names it.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BadSettings(f"{path} cannot be read: {error.strerror or error}.") from None
    return parse_experiment(content, tenant, where=str(path))


def read_experiments(folder: Path, tenant: str | None = None) -> tuple[list[Experiment], list[BrokenExperiment]]:
    """The experiments of one tenant or of all, and the files that are none, each by tenant and name.

    One broken file hides no other.

    Args:
        folder: `workspace.experiments`.
        tenant: Whose; None is everybody's.
    """
    found: list[Experiment] = []
    broken: list[BrokenExperiment] = []
    for path in sorted(folder.glob(f"{tenant}/*.toml" if tenant else "*/*.toml")):
        of = path.parent.name
        try:
            found.append(read_experiment_file(path, of))
        except BadInput as error:
            broken.append(BrokenExperiment(of, path.stem, str(path), str(error)))
    return found, broken


class ExperimentFiles:
    """The running experiments of every tenant.

    A file that does not hold together is passed over and named in the log; the version read before stays in force.

    Args:
        folder: `workspace.experiments`: one folder a tenant, one TOML file an experiment.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._looked_at: dict[str, float] = {}
        self._stamps: dict[str, dict[str, tuple[int, int]]] = {}
        self._read: dict[str, dict[str, Experiment]] = {}
        self._running: dict[str, list[Experiment]] = {}

    def running(self, tenant: str, now: float) -> list[Experiment]:
        """A tenant's running experiments, the one that started first first.

        Args:
            tenant: Whose.
            now: Unix seconds.
        """
        looked_at = self._looked_at.get(tenant)
        if looked_at is None or not 0 <= now - looked_at < REFRESH_S:
            self._looked_at[tenant] = now
            self._look(tenant)
        return self._running.get(tenant, [])

    def assignments(
        self,
        tenant: str,
        now: float,
        *,
        visitor_id: str | None = None,
        session_id: str | None = None,
        user_id: str | None = None,
    ) -> dict[str, str]:
        """Experiment → variant of one visitor, over all running experiments that include them."""
        assigned: dict[str, str] = {}
        for experiment in self.running(tenant, now):
            unit_id = unit_id_of(experiment, visitor_id=visitor_id, session_id=session_id, user_id=user_id)
            if unit_id is not None and (variant := assign(experiment, unit_id).variant) is not None:
                assigned[experiment.name] = variant
        return assigned

    def _look(self, tenant: str) -> None:
        stamps: dict[str, tuple[int, int]] = {}
        paths: dict[str, Path] = {}
        for path in sorted((self._folder / tenant).glob("*.toml")):
            try:
                stat = path.stat()
            except FileNotFoundError:
                continue
            stamps[path.stem] = (stat.st_mtime_ns, stat.st_ino)
            paths[path.stem] = path
        if stamps == self._stamps.get(tenant, {}):
            return
        old = self._read.get(tenant, {})
        self._read[tenant] = {
            name: experiment for name, path in paths.items() if (experiment := _read(path, tenant, old)) is not None
        }
        self._stamps[tenant] = stamps
        running = [experiment for experiment in self._read[tenant].values() if is_running(experiment)]
        running.sort(key=lambda experiment: (experiment.started_at is None, experiment.started_at, experiment.name))
        self._running[tenant] = running


def _read(path: Path, tenant: str, old: Mapping[str, Experiment]) -> Experiment | None:
    try:
        return parse_experiment(path.read_text(encoding="utf-8"), tenant, where=path.name)
    except (BadSettings, OSError, UnicodeDecodeError) as error:
        _log.warning("%s: %s", path.name, error)
        return old.get(path.stem)


def exposure_of(experiment: Experiment, unit_id: str) -> ExperimentExposure | None:
    """What is logged of a unit under an experiment, with the full vector of probabilities; None when it is outside."""
    assigned = assign(experiment, unit_id)
    if assigned.variant is None:
        return None
    return ExperimentExposure(
        experiment=experiment.name,
        variant=assigned.variant,
        unit=experiment.unit,
        unit_id=unit_id,
        allocation_version=assigned.allocation_version,
        propensities=assigned.propensities,
    )
