"""Exercises of notebook 05: worked solutions, and likely mistakes with what is said of them."""

import math

import torch

from diffkit.course.exercises.foundations import training as ex


def stratified(u, T):
    B = len(u)
    return ((torch.arange(B) + u) / B * T).long().clamp(max=T - 1) + 1


def stratified_in_any_order(u, T):
    return stratified(u.double(), T).flip(0)


def clipped(network):
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)


def hidden_mean(process, network, x0, t, rng):
    xt, is_masked = process.corrupt(x0, t, rng)
    return process.token_loss(network, x0, xt, t).sum() / is_masked.sum()


def training_step_by_hand(process, network, optimizer, x0, t, rng):
    """Masks of its own draw, PyTorch's cross-entropy, gradients cleared at the end."""
    is_masked = torch.rand(x0.shape, generator=rng) < (t / 1000)[:, None]
    logits = network(torch.where(is_masked, process.mask_id, x0), t)[is_masked]
    logits[:, process.mask_id] = -torch.inf
    loss = torch.nn.functional.cross_entropy(logits, x0[is_masked])
    loss.backward()
    clipped(network)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return loss


def slipped(loss_of=hidden_mean, clear=True, clip=clipped, sign=1, result=torch.Tensor.item):
    """A training step with one slip."""

    def step(process, network, optimizer, x0, t, rng):
        loss = loss_of(process, network, x0, t, rng)
        if clear:
            optimizer.zero_grad()
        (sign * loss).backward()
        if clip:
            clip(network)
        optimizer.step()
        return result(loss)

    return step


def over_all(process, network, x0, t, rng):
    return process.token_loss(network, x0, process.corrupt(x0, t, rng)[0], t).mean()


def by_row(process, network, x0, t, rng):
    xt, is_masked = process.corrupt(x0, t, rng)
    return (process.token_loss(network, x0, xt, t).sum(1) / is_masked.sum(1).clamp(min=1)).mean()


def of_clean(process, network, x0, t, rng):
    return torch.nn.functional.cross_entropy(network(x0, t).flatten(0, 1), x0.flatten())


def ema(average, weights, steps_done, keep):
    keep = min(keep, (1 + steps_done) / (10 + steps_done))
    return keep * average + (1 - keep) * weights


def ema_by_lerp(average, weights, steps_done, keep):
    return torch.lerp(average, weights, max(1 - keep, 9 / (10 + steps_done))).numpy()


def lr_scale(step, steps, warmup, decay):
    left = (steps - step) / (decay * steps)
    return min(1.0, (step + 1) / warmup) * (0.5 - 0.5 * math.cos(math.pi * min(1.0, left)))


SOLUTIONS = {
    ex.check_stratified: [stratified, stratified_in_any_order],
    ex.check_training_step: [training_step_by_hand, ex.training_step],
    ex.check_ema: [ema, ema_by_lerp],
    ex.check_lr_scale: [lr_scale],
}


WRONG = [
    (ex.check_stratified, "round to the nearest",
     lambda u, T: ((torch.arange(len(u)) + u) / len(u) * T).round().clamp(1, T)),
    (ex.check_stratified, "times run from 1", lambda u, T: ((torch.arange(len(u)) + u) / len(u) * T).ceil()),
    (ex.check_stratified, "whole axis", lambda u, T: (u * T).long() + 1),
    (ex.check_stratified, "0 to T - 1", lambda u, T: stratified(u, T) - 1),
    (ex.check_stratified, "u[0]", lambda u, T: stratified(u[0].expand(len(u)), T)),
    (ex.check_stratified, "not used", lambda u, T: stratified(u * 0, T)),
    (ex.check_stratified, "T + 1", lambda u, T: ((torch.arange(len(u)) + u) / len(u) * T).long() + 1),
    (ex.check_stratified, "Divide by B", lambda u, T: ((torch.arange(len(u)) + u) * T).long() + 1),
    (ex.check_stratified, "whole numbers", lambda u, T: (torch.arange(len(u)) + u) / len(u) * T),
    (ex.check_training_step, "over all tokens", slipped(over_all)),
    (ex.check_training_step, "within each row", slipped(by_row)),
    (ex.check_training_step, "answers included", slipped(of_clean)),
    (ex.check_training_step, "not clipped", slipped(clip=None)),
    (ex.check_training_step, "elsewhere",
     slipped(clip=lambda network: torch.nn.utils.clip_grad_value_(network.parameters(), 0.01))),
    (ex.check_training_step, "linger", slipped(clear=False)),
    (ex.check_training_step, "climbed", slipped(sign=-1)),
    (ex.check_training_step, "return the loss", slipped(result=lambda loss: 2 * loss.item())),
    (ex.check_training_step, "no weight changed", lambda p, n, o, x0, t, rng: hidden_mean(p, n, x0, t, rng)),
    (ex.check_training_step, "never calls", lambda p, n, o, x0, t, rng: 1.0),
    (ex.check_ema, "swapped", lambda a, w, n, keep: ema(w, a, n, keep)),
    (ex.check_ema, "forget faster", lambda a, w, n, keep: keep * a + (1 - keep) * w),
    (ex.check_ema, "late in a run", lambda a, w, n, keep: ema(a, w, n, 1.0)),
    (ex.check_ema, "smaller of the two", lambda a, w, n, keep: torch.lerp(w, a, max(keep, (1 + n) / (10 + n)))),
    (ex.check_ema, "nothing of the past", lambda a, w, n, keep: w.clone()),
    (ex.check_ema, "the first number", lambda a, w, n, keep: ema(a, w, n + 9, keep)),
    (ex.check_lr_scale, "step + 1", lambda s, n, w, d: lr_scale(s - 1, n, w, d) if s < w else lr_scale(s, n, w, d)),
    (ex.check_lr_scale, "straight line", lambda s, n, w, d: min(1.0, (s + 1) / w, (n - s) / (d * n))),
    (ex.check_lr_scale, "warm-up is not over", lambda s, n, w, d: lr_scale(s, n, 1, d)),
    (ex.check_lr_scale, "still full", lambda s, n, w, d: min(1.0, (s + 1) / w)),
    (ex.check_lr_scale, "whole run",
     lambda s, n, w, d: min(1.0, (s + 1) / w) if s < n / 2 else 0.5 + 0.5 * math.cos(math.pi * s / n)),
    (ex.check_lr_scale, "rises", lambda s, n, w, d: lr_scale(s, n, w, d) if s < n * 0.7 else 1 - lr_scale(s, n, w, d)),
]  # fmt: skip
