"""The gates of the built-in benchmark are not passed by a base that was never trained."""

from flix_lightning.common import cli
from flix_lightning.reports.tables import gates
from flix_lightning.runs.run import Run
from flix_lightning.training.train import train


def test_an_untrained_base_passes_no_gate(base, tmp_path):
    cfgs = cli.sweep_configs(
        [
            "+sweeps=gates",
            f"output={tmp_path}",
            f"model.pretrained={base}",
            *("data.root.train=2", "data.root.validation=1", "data.root.test=2"),
            *("data.max_input_length=32", "data.max_target_length=4"),
            *("trainer.max_steps=2", "trainer.batch_size=8", "evaluation.every=2", "logger=[]"),
        ]
    )
    for cfg in cfgs:
        train(cfg)
    report = gates.table([Run.resolve(cfg) for cfg in cfgs])
    lines = {name: texts for name, *texts in report.tables[0].sections[0].lines}
    assert lines["Passed"] == ["no"] * 7
    assert all(float(score) < 5 for score in lines["Compute-matched LoRA"])
    assert all(float(score) > 5 for score in lines["Guessing"])
    assert report.failed
