"""The pretraining of the base model.

Interrupted, the same command goes on from its last checkpoint. When it ends, its folder is one that
`from_pretrained` reads: config, tokenizer, weights in bfloat16.
"""

import json
import time
from pathlib import Path

import torch
from rich.progress import track
from torch import nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from flix_lightning.cldr.pretraining.batches import MAX_TARGET, Batches
from flix_lightning.cldr.pretraining.tokenizer import train_tokenizer
from flix_lightning.common.files import atomic_file, make_folder

ARCHITECTURE = {
    "d_model": 256,
    "d_kv": 32,
    "num_heads": 8,
    "d_ff": 768,
    "num_layers": 3,
    "num_decoder_layers": 2,
    "dropout_rate": 0.0,
    "relative_attention_max_distance": 64,
}
WARMUP = 100  # steps
# Share of the steps at the end in which the rate falls. Before them, runs of any number of steps are alike.
DECAY = 0.3
# At three times these rates, the noise of the other tasks hides what a task teaches.
LEARNING_RATE, EMBEDDING_LEARNING_RATE, POSITION_LEARNING_RATE = 1e-3, 3e-3, 1e-2
POSITION_BIAS = 8.0  # in nats, of a head that starts out looking at, or away from, certain places
SAVE_EVERY = 250  # steps


@torch.no_grad()
def start_attention(model: T5ForConditionalGeneration) -> None:
    """Start some heads as copying and looking up need them, which plain T5 is slow to find.

    Encoder: one head each looks at the token before, the next, its own, the seven before and the seven
    after; two look at other places with the same token (queries and keys start alike).
    Decoder: one head each looks at the token before and its own; cross-attention passes on what it
    looks at unchanged (values and outputs start as each other's inverse).

    Picking one of four values by its key, 600 possible tokens: 98 % right after 100 steps of 64 examples
    (AdamW, 1e-3); at chance after 400 without the heads for windows and for same tokens.
    """
    encoder, decoder = (
        stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight
        for stack in (model.encoder, model.decoder)
    )
    after = encoder.shape[0] // 2  # the second half of the encoder's buckets is for what comes after
    for head, buckets in enumerate((1, after + 1, 0, slice(1, 8), slice(after + 1, after + 8))):
        encoder[buckets, head] += POSITION_BIAS
    for head, bucket in enumerate((1, 0)):
        decoder[bucket, head] += POSITION_BIAS
    width = model.config.d_kv
    for head in (5, 6):
        encoder[0, head] -= POSITION_BIAS  # the same token elsewhere, not here
        for block in model.encoder.block:
            attention = block.layer[0].SelfAttention
            rows = slice(head * width, (head + 1) * width)
            attention.q.weight[rows] = attention.k.weight[rows]
    for block in model.decoder.block:
        attention = block.layer[1].EncDecAttention
        nn.init.orthogonal_(attention.v.weight)
        attention.o.weight.copy_(attention.v.weight.T)


def _optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    # Muon for the hidden matrices: it learned to copy in fewer steps than AdamW (150 against over 250).
    groups: dict[str, list[nn.Parameter]] = {"hidden": [], "norm": [], "embedding": [], "position": []}
    for name, parameter in model.named_parameters():
        if "shared" in name:
            groups["embedding"].append(parameter)
        elif "relative_attention_bias" in name:
            groups["position"].append(parameter)
        else:
            groups["hidden" if parameter.ndim == 2 else "norm"].append(parameter)
    return [
        torch.optim.Muon(
            groups["hidden"], lr=LEARNING_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(
            [
                {"params": groups["norm"], "lr": LEARNING_RATE},
                {"params": groups["embedding"], "lr": EMBEDDING_LEARNING_RATE},
                {"params": groups["position"], "lr": POSITION_LEARNING_RATE},
            ],
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=True,
        ),
    ]


def _loss(model: T5ForConditionalGeneration, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the mean over examples of each one's mean over tokens, so that long lists weigh no more.

    The vocabulary's logits, half of a step's work, are computed for the target's tokens only. Inputs, mask
    and `labels` are [batch, length]; `labels` has -100 after the target's end.
    """
    labels, mask = batch["labels"], batch["attention_mask"]
    encoded = model.encoder(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
    hidden = model.decoder(
        input_ids=model._shift_right(labels), encoder_hidden_states=encoded, encoder_attention_mask=mask
    ).last_hidden_state
    real = labels != -100
    logits = model.lm_head(hidden[real] * model.model_dim**-0.5)
    tokens = nn.functional.cross_entropy(logits.float(), labels[real], reduction="none")
    lengths = real.sum(1, keepdim=True).expand_as(labels)[real]
    return (tokens / lengths).sum() / len(labels)


def pretrain(out: Path, steps: int, seed: int) -> None:
    """Train from the last checkpoint in `out`, if there is one, to step `steps`; save the model there."""
    make_folder(out)
    torch.manual_seed(seed)
    if not (out / "tokenizer.json").exists():
        train_tokenizer(seed).save_pretrained(out)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(out)
    config = T5Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
        **ARCHITECTURE,
    )
    model = T5ForConditionalGeneration(config)
    start_attention(model)
    optimizers = _optimizers(model)

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / WARMUP, (steps - step) / (DECAY * steps))

    stateful = [model, *optimizers, *(LambdaLR(optimizer, rate) for optimizer in optimizers)]
    start, seconds, checkpoint = 0, 0.0, out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        start, seconds = saved["step"], saved["seconds"]
        for part, state in zip(stateful, saved["state"], strict=True):
            part.load_state_dict(state)

    began = time.monotonic() - seconds
    data = Batches(tokenizer, seed, start, steps)
    batches = DataLoader(data, batch_size=None, num_workers=1, prefetch_factor=8)
    with (out / "log.jsonl").open("a") as log:
        mean = None
        for step, batch in track(enumerate(batches, start + 1), "pretraining", steps, start):
            with torch.autocast("cpu", torch.bfloat16):
                loss = _loss(model, batch)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for part in stateful[1:]:
                part.step()
            model.zero_grad()
            mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
            if step % SAVE_EVERY == 0 or step == steps:
                seconds = time.monotonic() - began
                line = {"step": step, "loss": round(mean, 4), "seconds": round(seconds)}
                print(json.dumps(line), file=log, flush=True)
                with atomic_file(checkpoint) as file:
                    state = [part.state_dict() for part in stateful]
                    torch.save({"step": step, "seconds": seconds, "state": state}, file)
    model.generation_config.max_new_tokens = MAX_TARGET
    model.to(torch.bfloat16).save_pretrained(out)
