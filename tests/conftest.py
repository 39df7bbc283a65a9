"""A tiny base model, tiny data, and the overrides that make a run of them: seconds on one core."""

import os

import pytest
import torch
from folders import line_of, write_split
from tiny_data import EVALUATE, SEEN, TRAIN, UNSEEN
from tiny_models import byte_tokenizer
from transformers import ByT5Tokenizer, GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

# For the commands too that tests start.
os.environ["WANDB_MODE"] = "offline"
os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    """A folder with a T5 of random weights that reads bytes."""
    folder = tmp_path_factory.mktemp("base")
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=384, d_model=32, d_kv=8, d_ff=32, num_layers=1, num_heads=4, dropout_rate=0.1,
        feed_forward_proj="gated-gelu", decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    # Larger than usual, so that different inputs have different outputs.
    for weight in model.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    model.save_pretrained(folder)
    ByT5Tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def decoder_base(tmp_path_factory):
    """The same with a GPT-2."""
    folder = tmp_path_factory.mktemp("decoder-base")
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=1, n_head=4, n_positions=64, resid_pdrop=0.1,
        bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Data whose targets say the language, so that there is something to learn."""
    folder = tmp_path_factory.mktemp("data")
    for split, count in (("train", 12), ("validation", 3), ("test", 4)):
        for task, language in [*SEEN, *UNSEEN]:
            lines = [
                line_of(task, f"{split} {'x' * n}", language if n % 2 else language.upper())
                for n in range(count)
            ]
            write_split(folder, task, split, language, lines)
    return folder


@pytest.fixture(scope="session")
def tiny(base, data, tmp_path_factory):
    """Overrides of a run of a second or two."""
    return [
        f"model.pretrained={base}",
        "data=xtreme_up",
        f"data.root={data}",
        "data.max_input_length=48",
        "data.max_target_length=4",
        "mixture.name=tiny",
        f"mixture.train={TRAIN}",
        f"mixture.evaluate={EVALUATE}",
        "mixture.report=[semantic_parsing,ner]",
        "trainer.max_steps=5",
        "trainer.batch_size=8",
        "trainer.micro_batch_size=4",
        "trainer.progress=lines",
        "logger=[csv]",
        "optimizer.warmup_steps=2",
        "optimizer.learning_rate=2e-2",
        "flix.dropout=0.3",
        "flix.rescale=false",
        "evaluation.every=2",
        "evaluation.selection=task",  # a checkpoint for each task
    ]


@pytest.fixture(scope="session")
def done(tiny, tmp_path_factory):
    """The folder of a finished tiny run, to be read only."""
    from tiny_runs import do  # here, as few tests need what it imports

    return do(tiny, tmp_path_factory.mktemp("done"))
