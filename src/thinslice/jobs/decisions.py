"""The ledger: what was decided when each experiment had ended; the first reading counts and stays."""

from datetime import datetime

import msgspec

from thinslice.experiments.decide import has_ended
from thinslice.records import Decision, Experiment, Report
from thinslice.store.lake import Lake
from thinslice.store.schemas import Decided, to_records


def settle(lake: Lake, experiment: Experiment, report: Report, now: datetime) -> Report:
    """The report with the decision that was recorded; at the first report after the end this one is.

    Before the planned end nothing is recorded, and the report is as it was. Somebody who looks again later sees new
    effects beside the old decision: more data after the end is no reason to decide again.

    Args:
        lake: Its table `decisions`.
        experiment: What ended.
        report: As it reads now.
        now: The moment of the report, aware.
    """
    started = experiment.started_at is not None
    if not (started and has_ended(experiment, now) and any(report.units.values())):
        return report
    found = recorded(lake, experiment.tenant, experiment.name)
    if found is None:
        decision = report.decision
        effects = {f"{row.name}/{row.variant}": msgspec.to_builtins(row) for row in report.metrics}
        lake.add(
            "decisions",
            [Decided(tenant=experiment.tenant, experiment=experiment.name, decided_at=now, action=decision.action,
                     sentence=decision.sentence, variant=decision.variant, reasons=decision.reasons,
                     kind=experiment.kind, effects=effects)],
        )  # fmt: skip
        found = recorded(lake, experiment.tenant, experiment.name)
        if found is None:
            return report
    decision = Decision(action=found.action, variant=found.variant, sentence=found.sentence, reasons=found.reasons)
    return msgspec.structs.replace(report, decision=decision, recorded_at=found.decided_at)


def recorded(lake: Lake, tenant: str, experiment: str) -> Decided | None:
    """What was decided first about an experiment; None while nothing was."""
    rows = [row for row in ledger(lake, tenant) if row.experiment == experiment]
    return rows[0] if rows else None


def ledger(lake: Lake, tenant: str) -> list[Decided]:
    """Every decision of a tenant, oldest first."""
    if lake.version("decisions") < 0:
        return []
    connection = lake.connect(tenant=tenant)
    try:
        table = connection.execute("SELECT * FROM decisions ORDER BY decided_at").to_arrow_table()
    finally:
        connection.close()
    return to_records(Decided, table)
