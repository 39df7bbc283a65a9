"""Write adapters of a finished run for PEFT and what reads its format, or merged models.

`python export.py run=outputs/runs/RUN features=[task:ner,language:sw] out=adapters/ner-sw`
"""

from flix_lightning.common.cli import hydra_main


def main(cfg):
    """Write the combinations that the config names."""
    from flix_lightning.inference import export  # here, so that --help and mistakes in the command are quick

    for folder in export.export(cfg):
        print(folder)


if __name__ == "__main__":
    hydra_main(main, "export")
