import shutil

import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM

from flix_lightning.common.errors import UserError
from flix_lightning.models import base as models


def test_weights_that_are_missing_are_no_random_ones(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "base")
    weights = load_file(folder / "model.safetensors")
    del weights["decoder.final_layer_norm.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lacks 1 weights of T5.*decoder\.final_layer_norm\.weight"):
        models.load(str(folder), "main", "float32")


def test_a_decoder_without_a_start_is_refused(base, tmp_path):
    folder = shutil.copytree(base, tmp_path / "base")
    model = AutoModelForSeq2SeqLM.from_pretrained(base)
    model.config.decoder_start_token_id = model.generation_config.decoder_start_token_id = None
    model.save_pretrained(folder)
    with pytest.raises(UserError, match="decoder_start_token_id"):
        _ = models.load(str(folder), "main", "float32").decoder_start
