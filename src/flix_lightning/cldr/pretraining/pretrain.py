"""Make the base model: `python -m flix_lightning.cldr.pretraining.pretrain --steps 8000 --out outputs/base`.

Interrupted, the same command goes on from its last checkpoint. When it ends, `--out` holds a folder that
`from_pretrained` reads: config, tokenizer, weights in bfloat16.
"""

import argparse
import json
import random
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch
from rich.progress import Progress, TextColumn, TimeRemainingColumn
from torch import nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from flix_lightning.cldr.pretraining.corpus import Pair, pairs
from flix_lightning.cldr.pretraining.tokenizer import SENTINELS, train_tokenizer

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
BATCH = 32  # examples a step
POOL = 16  # steps whose examples are sorted by length together
MAX_INPUT, MAX_TARGET = 96, 64  # tokens
NOISE, SPAN = 0.3, 3  # share of the tokens hidden from denoised text; mean length of what is hidden together
WARMUP, DECAY = 0.02, 0.3  # shares of the steps
# Three times as high, what a task teaches drowns in the noise of the others.
LEARNING_RATE, EMBEDDING_LEARNING_RATE, POSITION_LEARNING_RATE = 1e-3, 3e-3, 1e-2
POSITION_BIAS = 8.0  # in nats, of a head that starts out looking at, or away from, certain places
SAVE_EVERY = 250  # steps


def hide(ids: list[int], spans: list[range], sentinels: list[int]) -> tuple[list[int], list[int]]:
    """Hide `spans` of `ids`, in order, behind sentinels: (input, target), as T5's span corruption does."""
    source: list[int] = []
    target: list[int] = []
    position = 0
    for sentinel, span in zip(sentinels[:-1], spans, strict=False):
        source += [*ids[position : span.start], sentinel]
        target += [sentinel, *ids[span.start : span.stop]]
        position = span.stop
    return [*source, *ids[position:]], [*target, sentinels[-1]]


def random_spans(length: int, rng: random.Random) -> list[range]:
    """Spans of SPAN tokens on average, NOISE of all `length` of them."""
    spans = []
    position = 0
    while position < length:
        if rng.random() < NOISE / SPAN:
            stop = min(length, position + rng.randint(1, 2 * SPAN - 1))
            spans.append(range(position, stop))
            position = stop
        else:
            position += 1
    return spans


def _tokens(offsets: list[tuple[int, int]], place: tuple[int, int]) -> range:
    """The tokens that any of the characters from `place[0]` to before `place[1]` is in."""
    found = [token for token, (start, stop) in enumerate(offsets) if start < place[1] and stop > place[0]]
    return range(found[0], found[-1] + 1) if found else range(0)


class Batches(IterableDataset):
    """Batches of step `start` and on: a pure function of seed and step, so that resuming needs no state."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, start: int, steps: int):
        self.tokenizer, self.seed, self.start, self.steps = tokenizer, seed, start, steps

    def _encode(self, pair: Pair, rng: random.Random) -> tuple[list[int], list[int]]:
        end = self.tokenizer.eos_token_id
        encoded = self.tokenizer(pair.input, add_special_tokens=False, return_offsets_mapping=True)
        source = encoded.input_ids
        if pair.target is None:
            source = source[:MAX_INPUT]
            if pair.hidden:
                spans = [_tokens(encoded.offset_mapping[:MAX_INPUT], place) for place in pair.hidden]
            else:
                spans = random_spans(len(source), rng)
            sentinels = self.tokenizer.convert_tokens_to_ids([f"<extra_id_{i}>" for i in range(SENTINELS)])
            source, target = hide(source, [span for span in spans if span], sentinels)
        else:
            target = self.tokenizer(pair.target, add_special_tokens=False).input_ids
        return [*source[: MAX_INPUT - 1], end], [*target[: MAX_TARGET - 1], end]

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        for pool in range(self.start // POOL, -(-self.steps // POOL)):
            rng = random.Random(f"{self.seed}/{pool}")
            encoded = [self._encode(pair, rng) for pair in islice(pairs(rng), POOL * BATCH)]
            encoded.sort(key=lambda pair: (len(pair[0]), len(pair[1])))
            order = rng.sample(range(POOL), POOL)
            for offset, block in enumerate(order):
                if self.start <= pool * POOL + offset < self.steps:
                    yield self._pad(encoded[block * BATCH : (block + 1) * BATCH])

    def _pad(self, batch: list[tuple[list[int], list[int]]]) -> dict[str, torch.Tensor]:
        def stack(rows: list[list[int]], fill: int) -> torch.Tensor:
            return nn.utils.rnn.pad_sequence(
                list(map(torch.tensor, rows)), batch_first=True, padding_value=fill
            )

        inputs = stack([source for source, _ in batch], self.tokenizer.pad_token_id)
        return {
            "input_ids": inputs,
            "attention_mask": (inputs != self.tokenizer.pad_token_id).long(),
            "labels": stack([target for _, target in batch], -100),
        }


@torch.no_grad()
def start_attention(model: T5ForConditionalGeneration) -> None:
    """Start some heads with what copying and looking up are made of, which plain T5 takes long to come upon.

    Encoder: heads that look at the token before, the next and their own, at the seven before and the seven
    after, and two that look at other places with the same token (queries and keys start alike).
    Decoder: heads that look at the token before and their own, and cross-attention that passes on what it
    looks at as it is (values and outputs start as each other's inverse).

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
    hidden, norms, embedding, positions = [], [], [], []
    for name, parameter in model.named_parameters():
        if "shared" in name:
            embedding.append(parameter)
        elif "relative_attention_bias" in name:
            positions.append(parameter)
        else:
            (hidden if parameter.ndim == 2 else norms).append(parameter)
    return [
        torch.optim.Muon(hidden, lr=LEARNING_RATE, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(
            [
                {"params": norms, "lr": LEARNING_RATE},
                {"params": embedding, "lr": EMBEDDING_LEARNING_RATE},
                {"params": positions, "lr": POSITION_LEARNING_RATE},
            ],
            betas=(0.9, 0.98),
            weight_decay=0.0,
            fused=True,
        ),
    ]


def _loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The mean over examples of each one's mean over tokens, or long lists would drown short answers."""
    tokens = nn.functional.cross_entropy(logits.float().flatten(0, 1), labels.flatten(), reduction="none")
    return (tokens.view_as(labels).sum(1) / (labels != -100).sum(1)).mean()


def _rate(step: int, steps: int) -> float:
    """Learning rate at `step` as a share of the highest: up, level, down to zero."""
    return min(1.0, (step + 1) / (WARMUP * steps), (steps - step) / (DECAY * steps))


def pretrain(out: Path, steps: int, seed: int) -> None:
    """Train from the last checkpoint in `out`, if there is one, to `steps`; save the model there."""
    out.mkdir(parents=True, exist_ok=True)
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
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, steps))
        for optimizer in optimizers
    ]
    stateful = [model, *optimizers, *schedulers]
    start, seconds, checkpoint = 0, 0.0, out / "checkpoint.pt"
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        start, seconds = saved["step"], saved["seconds"]
        for part, state in zip(stateful, saved["state"], strict=True):
            part.load_state_dict(state)

    began = time.monotonic() - seconds
    batches = DataLoader(
        Batches(tokenizer, seed, start, steps), batch_size=None, num_workers=1, prefetch_factor=8
    )
    columns = (
        *Progress.get_default_columns()[:-1],
        TimeRemainingColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
    )
    with Progress(*columns) as progress, (out / "log.jsonl").open("a") as log:
        bar = progress.add_task("pretraining", total=steps, completed=start, loss=float("nan"))
        mean = None
        for step, batch in enumerate(batches, start + 1):
            with torch.autocast("cpu", torch.bfloat16):
                loss = _loss(model(**batch).logits, batch["labels"])
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for part in (*optimizers, *schedulers):
                part.step()
            model.zero_grad()
            mean = loss.item() if mean is None else 0.98 * mean + 0.02 * loss.item()
            progress.update(bar, completed=step, loss=mean)
            if step % SAVE_EVERY == 0 or step == steps:
                seconds = time.monotonic() - began
                print(
                    json.dumps({"step": step, "loss": round(mean, 4), "seconds": round(seconds)}),
                    file=log,
                    flush=True,
                )
                state = {"step": step, "seconds": seconds, "state": [part.state_dict() for part in stateful]}
                torch.save(state, checkpoint.with_suffix(".tmp"))
                checkpoint.with_suffix(".tmp").replace(checkpoint)
    model.generation_config.max_new_tokens = MAX_TARGET
    model.to(torch.bfloat16).save_pretrained(out)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the model and its checkpoint")
    parser.add_argument("--steps", type=int, required=True, help=f"updates of {BATCH} examples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    pretrain(options.out, options.steps, options.seed)


if __name__ == "__main__":
    main()
