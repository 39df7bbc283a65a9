import torch

from flix_lightning.training.checkpointing import BestCheckpoint


def test_a_best_checkpoint_knows_again_all_that_it_knew(tmp_path):
    """Also the score of its last save, which Lightning's own leaves out."""
    made, again = (BestCheckpoint(dirpath=tmp_path, monitor="val/mean", mode="max") for _ in range(2))
    path, score = str(tmp_path / "best.ckpt"), torch.tensor(3.0)
    made.best_model_path = made.kth_best_model_path = path
    made.best_model_score = made.kth_value = made.current_score = score
    made.best_k_models = {path: score}
    again.load_state_dict(made.state_dict())
    assert again.state_dict() == made.state_dict()
