"""What the settings that these commands share may be."""

from flix_lightning.common import settings
from flix_lightning.inference.predictor import WINDOW

#: Of every command that asks a finished run.
RUN = {"run": settings.TEXT, "checkpoint": settings.nullable(settings.TEXT)}

#: Of a command that generates texts.
GENERATION = {
    "batch_size": settings.nullable(settings.integer(1, 2**20)),
    "accelerator": settings.TEXT,
    "devices": settings.integer(1, WINDOW),
    "precision": settings.ANY,  # checked by Lightning
}
