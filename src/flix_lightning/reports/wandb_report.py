"""The dashboard's charts as a W&B report: `python -m flix_lightning.reports.wandb_report ENTITY PROJECT`.

The report is made in your own W&B account (`wandb login`), of the runs that are there: those of
WANDB_MODE=online, or after `wandb sync outputs/runs/*/wandb/offline-run-*`. --spec needs no account and sends
nothing: it prints the report's JSON.
"""

import argparse
import sys

import wandb

from flix_lightning.reports.columns import HOLDOUT, JOINT, TABLE1, TABLE2, ScoreColumn
from flix_lightning.reports.tables import table3
from flix_lightning.runs.rows import mean_key

try:
    import wandb_workspaces.reports.v2 as wr
except ImportError:
    sys.exit("error: W&B reports need `pip install --constraint constraints.txt --editable '.[report]'`")

_WIDE = wr.Layout(w=24, h=12)


def report(entity: str, project: str) -> wr.Report:
    """Lay out the charts of `logger.wandb.project` of a W&B user or team; nothing is sent before `save()`."""
    joint = [column for column in TABLE1 if column.mixture == JOINT]
    holdout = [column for column in TABLE1 if column.mixture == HOLDOUT]
    alone = [column for column in TABLE2 if column.task]
    losses = ["train/loss", *(_key("val", column) for column in joint if column.seen == "seen")]
    languages = wr.WeavePanelSummaryTable(table_name="test/scores", layout=_WIDE)
    return wr.Report(
        entity=entity,
        project=project,
        title="FLix against LoRA",
        description="Test and validation scores on 0-100, macro averages over languages.",
        width="fluid",
        blocks=[
            wr.TableOfContents(),
            wr.H1("Table 1"),
            _grid([JOINT], [_bars(column) for column in joint]),
            _grid([HOLDOUT], [_bars(column) for column in holdout]),
            wr.H1("By language"),
            _grid([JOINT], [languages]),
            wr.H1("Dropout and rank"),
            _grid([table3.COLUMN.mixture], [_scatter(table3.COLUMN, "flix.dropout")]),
            *(_grid([column.mixture], [_scatter(column, "flix.ranks.language")]) for column in alone),
            wr.H1("Figure 2: learning all tasks together"),
            *(_grid([JOINT, column.mixture], [_bars(column)]) for column in alone),
            wr.H1("Learning curves"),
            _grid([JOINT], [wr.LinePlot(title=key, x="trainer/global_step", y=[key]) for key in losses]),
            wr.H1("Runs and their configs"),
            _grid([], [wr.RunComparer(diff_only="split", layout=_WIDE)]),
        ],
    )


def _key(split: str, column: ScoreColumn) -> str:
    return mean_key(split, column.task, column.seen)


def _grid(mixtures: list[str], panels: list) -> wr.PanelGrid:
    """Panels of the runs on each mixture, with a line or bar for each method; or of all runs."""
    runsets = [
        # A run's job type is its mixture.
        wr.Runset(name=name, filters=f"Metric('JobType') = '{name}'", groupby=["config.flix.name"])
        for name in mixtures
    ]
    return wr.PanelGrid(runsets=runsets or [wr.Runset(name="all")], panels=panels)


def _bars(column: ScoreColumn) -> wr.BarPlot:
    return wr.BarPlot(title=column.head, metrics=[_key("test", column)])


def _scatter(column: ScoreColumn, key: str) -> wr.ScatterPlot:
    score = wr.SummaryMetric(_key("test", column))
    return wr.ScatterPlot(title=f"{column.head} by {key}", x=wr.Config(key), y=score)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m flix_lightning.reports.wandb_report",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("entity", help="your W&B user or team")
    parser.add_argument("project", nargs="?", default="flix-lightning", help="flix-lightning if not said")
    parser.add_argument("--spec", action="store_true", help="print its JSON, and send nothing")
    options = parser.parse_args()
    draft = report(options.entity, options.project)
    if options.spec:
        print(draft._to_model().model_dump_json(by_alias=True, exclude_none=True))
        return
    try:
        wandb.login()
        draft.save()
    except wandb.Error as error:
        sys.exit(f"error: W&B does not create it: {error}")
    print(draft.url)


if __name__ == "__main__":
    main()
