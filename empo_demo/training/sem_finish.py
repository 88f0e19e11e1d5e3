"""After the training: average the encoder with its pretrained start, then refit the small heads.

Fine-tuning for several epochs makes the encoder remember its training dialogues; a weighted mean
with the weights it started from reads new ones better (WiSE-FT, Wortsman et al. 2022, arXiv
2109.01903). The share is chosen on fold 1. The cause and EPITOME heads are then fitted anew, with
the averaged encoder frozen; the emotion head needs none, its figures are what the share is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from empo_demo.empathy.encoder import SemNet, Text, collate
from empo_demo.training import sem_data as data_of

SHARES = (1.0, 0.9, 0.8, 0.75, 0.7, 0.65, 0.6)
REFIT_RATE, REFIT_EPOCHS, REFIT_BATCH = 3e-4, 4, 32

State = Mapping[str, Tensor]


def blend(net: SemNet, start: State, share: float) -> None:
    """Set the encoder to `share` of itself and the rest of `start`, its weights of old."""
    mixed = {
        name: share * value + (1 - share) * start[name] if value.is_floating_point() else value
        for name, value in net.encoder.state_dict().items()
    }
    net.encoder.load_state_dict(mixed)


def best_share(net: SemNet, start: State, examples: Sequence[data_of.Emotion]) -> float:
    """The share of `SHARES` with the least calibrated log-loss of the emotions of `examples`."""
    from empo_demo.training.sem_report import emotion_logits, temperature

    trained = {name: value.clone() for name, value in net.encoder.state_dict().items()}
    labels = torch.tensor([example.label for example in examples])
    losses = {}
    net.eval()
    for share in SHARES:
        net.encoder.load_state_dict(trained)
        blend(net, start, share)
        logits = emotion_logits(net, [example.text for example in examples])
        scaled = logits / temperature(logits, labels)
        losses[share] = float(torch.nn.functional.cross_entropy(scaled, labels))
    net.encoder.load_state_dict(trained)
    return min(losses, key=losses.__getitem__)


def refit(
    net: SemNet,
    causes: Sequence[data_of.CauseExample],
    pairs: Sequence[data_of.Pair],
    *,
    seed: int,
) -> None:
    """Fit the cause and EPITOME heads on the frozen encoder's states, computed once."""
    from empo_demo.training.sem import cause_loss, level_loss, level_weights

    heads = [net.cause, net.pair, net.epitome]
    optimizer = torch.optim.AdamW([p for head in heads for p in head.parameters()], REFIT_RATE)
    weights = level_weights(pairs)
    net.eval()
    cause_states = _states(net, [example.text for example in causes])
    pair_states = _states(net, [example.text for example in pairs])
    net.dropout.train()
    for epoch in range(REFIT_EPOCHS):
        for part in _parts(len(causes), f"{seed} refit causes {epoch}"):
            states = _pad([cause_states[i] for i in part])
            _update(cause_loss(net, [causes[i] for i in part], states), optimizer)
        for part in _parts(len(pairs), f"{seed} refit pairs {epoch}"):
            states = _pad([pair_states[i] for i in part])
            _update(level_loss(net, [pairs[i] for i in part], weights, states), optimizer)
    net.eval()


def _states(net: SemNet, texts: Sequence[Text]) -> list[Tensor]:
    """The last hidden states of each text, (tokens, dim), in 16 bits to spare memory."""
    found: list[Tensor] = [torch.empty(0)] * len(texts)
    order = sorted(range(len(texts)), key=lambda i: len(texts[i].ids))
    for start in range(0, len(order), 64):
        part = order[start : start + 64]
        ids, mask, _ = collate([texts[i] for i in part])
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            hidden = net.hidden(ids, mask)
        for row, i in enumerate(part):
            found[i] = hidden[row, : len(texts[i].ids)].half()
    return found


def _pad(states: Sequence[Tensor]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(list(states), batch_first=True).float()


def _parts(count: int, seed: str) -> list[list[int]]:
    import random

    order = list(range(count))
    random.Random(seed).shuffle(order)
    return [order[i : i + REFIT_BATCH] for i in range(0, count, REFIT_BATCH)]


def _update(loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
