"""What a finished run is asked: predictions, evaluations, exports."""

from flix_lightning.inference.predictor import Predictor

__all__ = ["Predictor"]
