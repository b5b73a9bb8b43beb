"""Break the mathematics in one place at a time: does a test notice?

    python scripts/mutants.py                # all of them
    python scripts/mutants.py guidance top-p # those whose name holds one of these words
    python scripts/mutants.py --list         # only look whether each can still be made

Each mutant changes one line of a copy of the package, and the quick tests that should kill it run on that copy. A
survivor is a hole in the tests. A line that is no longer there is an error: write the mutant anew.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
TOO_LONG = 600  # seconds; a mutant that never ends is killed, too


class Mutant(NamedTuple):
    """A line as it is, and as it would be wrong."""

    name: str
    file: str  # in diffkit/
    old: str  # found once in the file
    new: str
    tests: str  # in tests/, separated by blanks


# (file, tests that should notice): name, the right line, a wrong one
TABLE = {
    ("processes/curves.py", "processes/test_schedules.py"): [
        ("quadratic rate", "lambda tau: tau * (2 - tau)", "lambda tau: tau * tau"),
        ("slope of cosine_sq", "HALF_PI * (math.pi * tau).sin()", "HALF_PI * (HALF_PI * tau).sin()"),
        ("slope of a polynomial", "power * tau ** (power - 1)", "tau ** (power - 1)"),
        ("slope of geometric", "lambda tau: ratio * sigma(tau)", "lambda tau: sigma(tau)"),
        ("inverse of a polynomial", "gamma ** (1 / power)", "gamma**power"),
        ("slope of a noise", "slope(tau) * (-total(tau)).exp()", "slope(tau)"),
    ],
    ("processes/masked.py", "processes/test_masked.py"): [
        ("discrete weight", "(gamma - schedule.rate(t - 1)) / gamma", "(gamma - schedule.rate(t - 1)) * gamma"),
        ("continuous weight", "schedule.T * schedule.slope(t) / gamma", "schedule.slope(t) / gamma"),
        ("a visible token keeps other chances", ".log_softmax(-1).masked_fill(is_visible, -torch.inf)",
         ".log_softmax(-1)"),
        ("chance to stay masked", "self.schedule.rate(s) / gamma", "self.schedule.rate(s)"),
        ("weight of a count", "nats / share[:, None].to(nats)", "nats * share[:, None].to(nats)"),
        ("count never L", "* L).long().clamp(max=L - 1) + 1, rng", "* L).long().clamp(min=1), rng"),
        ("frozen positions", "is_masked &= ~frozen", "is_masked &= frozen"),
        ("rank of the masked", "u.argsort(1).argsort(1) <", "u.argsort(1) <"),
    ],
    ("processes/transitions.py", "processes/test_transitions.py processes/test_d3pm.py"): [
        ("alpha between two times", "self.schedule.kept(s, t)", "self.schedule.keep(t)"),
        ("marginal", "alpha * p + redrawn * p.sum(-1, keepdim=True)", "alpha * p + redrawn * p.amax(-1, keepdim=True)"),
        ("gaussian sum over both sides", "2 * weight.sum() - weight[0]", "weight.sum()"),
        ("leave one out", "log_posterior - log_likelihood, -torch.inf", "log_posterior, -torch.inf"),
        ("divergence", "torch.special.xlogy(q, q) - q * log_p", "torch.special.xlogy(q, q) - p * log_p"),
    ],
    ("processes/d3pm.py", "processes/test_d3pm.py"): [
        ("T steps in the bound", "nats = self.T * divergence(", "nats = divergence("),
        ("posterior at s", "self.transitions.marginal(weights, 0, s)", "self.transitions.marginal(weights, 0, t)"),
        ("mixture divides the likelihood out", "f / likelihood.clamp(min=least)", "f"),
    ],
    ("processes/sedd.py", "processes/test_sedd.py processes/test_udlm.py"): [
        ("score entropy is 0 at the true score", "torch.special.xlogy(r, r) - r", "torch.special.xlogy(r, r)"),
        ("reverse rate", "self.schedule.slope(t) / self.schedule.keep(t)", "self.schedule.slope(t)"),
        ("euler stays with what is left", "(1 - leave.sum(-1, keepdim=True)).clamp(min=0)",
         "(1 - leave.sum(-1, keepdim=True)).clamp(min=1)"),
        ("speed of even noise", "/ (self.T * self.schedule.slope(t))", "/ self.schedule.slope(t)"),
    ],
    ("processes/sedd.py", "processes/test_edges.py"): [
        ("rate of a score under guidance", "(rate + logits.log_softmax(-1))", "logits.log_softmax(-1)"),
        ("noise goes on past its end", "(t <= self.end).to", "(t >= 0).to"),
    ],
    ("processes/curves.py", "processes/test_edges.py"): [
        ("alpha rounds with gamma", "lambda tau: (1 - tau) ** 2", "lambda tau: 1 - tau * (2 - tau)"),
    ],
    ("processes/masked.py", "processes/test_edges.py"): [
        ("a jump of gamma costs", "first, last = self.schedule.jumps if", "first, last = (0.0, 0.0) if"),
    ],
    ("processes/gaussian/embedding_diffusion.py", "processes/test_embedding_diffusion.py"): [
        ("share of the guess", "-torch.expm1(self.log_snr(t) - self.log_snr(s))",
         "-torch.expm1(self.log_snr(s) - self.log_snr(t))"),
        ("gaussian prior loss", "noise.square() - 1 - noise.square().log()", "noise.square() - 1"),
        ("closeness", "signal**2 / 2 * square", "signal / 2 * square"),
    ],
    ("processes/gaussian/plaid.py", "processes/test_embedding_diffusion.py"): [
        ("half of the fall of SNR", "0.5 * (last - first) * self.on_axis", "(last - first) * self.on_axis"),
        ("speed on the noise axis", "1 / (self.bins * probs.take(piece))", "1 / probs.take(piece)"),
    ],
    ("processes/block.py", "processes/test_block.py"): [
        ("weight of a block", "return nats / share.to(nats)", "return nats"),
        ("blocks to the right are not seen", "(number > row)", "(number >= row)"),
    ],
    ("network/cache.py", "processes/test_block.py processes/test_autoregressive.py"): [
        ("what has changed is read again", "known = min(first, self._unchanged(zt) // self.block * self.block)",
         "known = min(first, len(self.cache))"),
        ("blocks are kept whole", "self._unchanged(zt) // self.block * self.block", "self._unchanged(zt)"),
    ],
    ("languages/story_language.py", "languages/test_story_language.py"): [
        ("entropy of the template", "float(templates + self.template_probs @", "float(self.template_probs @"),
        ("slots weigh as their templates do", "normalise(slots, 1)[1] * group_weight[bucket.group][:, None]",
         "normalise(slots, 1)[1]"),
        ("evidence of literal words", "templates = templates + sum(evidence[column] for column in",
         "templates = templates + 0 * sum(evidence[column] for column in"),
    ],
    ("languages/saga_language.py", "languages/test_saga_language.py"): [
        ("the law is that of sagas that fit", "log_p - law.log_total", "log_p"),
        ("very sharp evidence", "(possible & (sums < FAINT))", "(possible & (sums < 0))"),
        ("a chapter weighs as its shared slots do", "(alpha + beta).exp() * past.weight[kept]", "(alpha + beta).exp()"),
        ("evidence of padding", "chapters[k] += pads[", "chapters[k] += 0 * pads["),
        ("entropy of a chapter's own slots", "(entr(follow).sum(-1) + own)", "entr(follow).sum(-1)"),
    ],
    ("languages/compile_sagas.py", "languages/test_saga_language.py"): [
        ("EOS fits, too", "start + needs[k] < self.L", "start + needs[k] <= self.L"),
    ],
    ("languages/compile.py", "languages/test_story_language.py"): [
        ("two templates, one text", "word.get(cell // V, cell) == cell", "True"),
    ],
    ("random.py", "test_random.py"): [
        ("an outcome without a chance at u = 0", "total, right=True)", "total, right=False)"),
    ],
    ("training/losses.py", "training/test_trainer.py"): [
        ("times from 1 to T", "(u * T).long().clamp(max=T - 1) + 1", "(u * T).long().clamp(max=T - 1)"),
        ("low discrepancy", "torch.randperm(B, generator=rng) +", "B * torch.rand(B, generator=rng) +"),
        ("sequences without a mask", "(count > 0).sum()", "(count >= 0).sum()"),
        ("count of a moment", ".ceil().long().clamp(1,", ".floor().long().clamp(1,"),
    ],
    ("training/config.py", "training/test_trainer.py"): [
        ("warm-up from its first step", "(step + 1) / max(1, self.warmup)", "step / max(1, self.warmup)"),
        ("curriculum holds first", "(progress - self.hold) / max(", "progress / max("),
    ],
    ("training/trainer.py", "training/test_trainer.py training/test_checkpoint.py"): [
        ("averaged weights warm up", "decay = min(config.ema, (1 +", "decay = max(config.ema, (1 +"),
        ("average of the weights", "[*self.weights.values()], 1 - decay)", "[*self.weights.values()], 0.0)"),
        ("a batch of a step weighs by its count", "backward(nats * share)", "backward(nats)"),
        ("curriculum counts steps", "reach(self.steps_done / config.steps)", "reach(1.0)"),
    ],
    ("training/resume.py", "training/test_trainer.py training/test_checkpoint.py"): [
        ("resume restores the generator", 'run.rng.set_state(tensors["rng"])', "pass"),
        ("resume restores the batches", 'run.batches.load_state_dict(numbers["batches"])', "pass"),
        ("resume restores the average", "tensors.get(prefix + name, tensors", 'tensors.get("", tensors'),
    ],
    ("training/checkpoint.py", "training/test_trainer.py training/test_checkpoint.py"): [
        ("resume restores the moments", 'load_state_dict({"state": state,', 'load_state_dict({"state": {},'),
    ],
    ("training/muon.py", "training/test_muon.py training/test_trainer.py"): [
        ("word vectors are not for Muon", ' and not name.startswith("process.")', ""),
        ("tables are not for Muon", 'config.optimizer == "muon" and id(p) not in tables', 'config.optimizer == "muon"'),
        ("no decay of vectors", '"params": vectors, "weight_decay": 0.0', '"params": vectors, "weight_decay": 0.1'),
        ("Nesterov momentum", 'matrix.grad.lerp(mean, group["momentum"])', "mean"),
        ("size of a step", "max(matrix.shape)", "min(matrix.shape)"),
    ],
    ("sampling/logits.py", "sampling/test_sampler.py"): [
        ("top-p at an exact tie", "probs.cumsum(-1) - probs >= p", "probs.cumsum(-1) - probs > p"),
        ("temperature", ".double() / max(temperature, SMALLEST)", ".double() * max(temperature, SMALLEST)"),
        ("a temperature near zero", "(logits - logits.amax(-1, keepdim=True)).double()", "logits.double()"),
        ("top-k keeps the lower id of a tie", "ties.cumsum(-1) <= most", "ties.cumsum(-1) < most"),
    ],
    ("sampling/logits.py", "sampling/test_guidance.py"): [
        ("filters leave the rate of a score", "process.with_token_logits(raw, own, logits)", "logits"),
    ],
    ("sampling/guidance.py", "sampling/test_guidance.py"): [
        ("guidance leaves the rate of a score", "raw.scatter(-1, own.long()[..., None], -torch.inf).logsumexp(",
         "raw.logsumexp("),
        ("guidance without its clamp", "log_q.clamp(min=MIN_LOG_PROB)", "log_q"),
        ("guidance counts from zero", "(1 + self.scale) * log_p", "self.scale * log_p"),
        ("Bayes of the classifier", "prior + log_p_y - log_p", "log_p_y - log_p"),
    ],
    ("sampling/unmasking.py", "sampling/test_sampler.py"): [
        ("margin", "best[..., 0] - best[..., 1]", "best[..., 0]"),
        ("sign of the entropy", "rounded(-torch.special.entr(probs)", "rounded(torch.special.entr(probs)"),
        ("masks to keep", ".item() + 1e-9).floor()", ".item() + 1e-9).ceil()"),
    ],
    ("sampling/skipping.py", "sampling/test_skipping.py"): [
        ("time of the first hit", "u ** (1 / n.clamp(min=1))", "u"),
    ],
    ("sampling/parallel.py", "sampling/test_skipping.py"): [
        ("all entropies but the largest", "entropies.cumsum(1) - entropies <=", "entropies.cumsum(1) <="),
    ],
    ("sampling/remasking.py", "sampling/test_remasking.py"): [
        ("masks stay as many", "(gamma_s - r * (1 - gamma_t)) / gamma_t", "(gamma_s - r * gamma_t) / gamma_t"),
        ("largest chance of remasking", "(1 - self.alpha_s) / self.alpha_t", "(1 - self.alpha_t) / self.alpha_t"),
    ],
    ("evaluation/bounds.py", "evaluation/test_bounds.py"): [
        ("stratified draws of the bound", "(torch.arange(draws) + uniform_numbers((len(x0), draws), rng)) / draws",
         "uniform_numbers((len(x0), draws), rng)"),
    ],
    ("course/orders.py", "course/test_orders.py"): [
        ("any order", "torch.where(when >= k,", "torch.where(when > k,"),
    ],
    ("evaluation/statistics.py", "evaluation/test_bounds.py evaluation/test_samples.py"): [
        ("standard error", "spread / math.sqrt(len(values))", "spread"),
        ("divergence of counts", "(share, share) - torch.special.xlogy(share, probs)",
         "(share, share) + torch.special.xlogy(share, probs)"),
    ],
}  # fmt: skip
MUTANTS = [Mutant(name, file, old, new, tests) for (file, tests), rows in TABLE.items() for name, old, new in rows]


def found_once(mutant: Mutant) -> bool:
    """Whether the line is in its file, and in one place only."""
    return (ROOT / "diffkit" / mutant.file).read_text(encoding="utf-8").count(mutant.old) == 1


def copied(folder: Path) -> Path:
    """The package and its tests as a copy, all else as links: nothing done there reaches the originals."""
    shutil.copy2(ROOT / "pyproject.toml", folder)
    for name in ("diffkit", "tests"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.iterdir():
        if path.name[0] != "." and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    return folder


def passes(folder: Path, tests: str, loud: bool = False) -> bool:
    """Whether the quick tests of these files pass; `loud` prints which one does not."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", "not slow and not browser"]
    settings = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *(f"tests/{name}" for name in tests.split())],
            cwd=folder, env=settings, capture_output=True, text=True, timeout=TOO_LONG,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return False
    if done.returncode not in (0, 1, 2):  # neither passed, nor failed, nor broken at import
        sys.exit(f"mutants: pytest {tests} ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    if loud and done.returncode:
        print(done.stdout[-3000:], file=sys.stderr)
    return done.returncode == 0


def verdicts(mutants: list[Mutant], folder: Path) -> Iterator[tuple[Mutant, str]]:
    """Try them one by one in a copy. Tests that fail without a mutant could kill none: each set is run once before."""
    sound: dict[str, bool] = {}
    for mutant in mutants:
        if mutant.tests not in sound:
            sound[mutant.tests] = passes(folder, mutant.tests, loud=True)
        if not sound[mutant.tests]:
            yield mutant, "not tried"
            continue
        path = folder / "diffkit" / mutant.file
        right = path.read_text(encoding="utf-8")
        path.write_text(right.replace(mutant.old, mutant.new), encoding="utf-8")
        yield mutant, "SURVIVED" if passes(folder, mutant.tests) else "killed"
        path.write_text(right, encoding="utf-8")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", help="only mutants whose name or file holds one of these")
    parser.add_argument("--list", action="store_true", help="make none, only look whether each can be made")
    args = parser.parse_args()
    chosen = [one for one in MUTANTS if not args.words or any(word in one.name + one.file for word in args.words)]
    if gone := [one for one in chosen if not found_once(one)]:
        print(*(f"mutants: {one.file} does not hold once: {one.old}" for one in gone), sep="\n", file=sys.stderr)
        return 2
    print(f"{len(chosen)} mutants")
    if args.list:
        return 0
    not_killed = []
    with tempfile.TemporaryDirectory() as place:
        for number, (one, verdict) in enumerate(verdicts(chosen, copied(Path(place))), 1):
            print(f"{number:3}/{len(chosen)}  {verdict:9}  {one.name}", flush=True)
            not_killed += [(verdict, one)] if verdict != "killed" else []
    for verdict, one in not_killed:
        print(f"{verdict}: {one.name}\n  {one.file}: {one.old}\n  -> {one.new}\n  tests: {one.tests}")
    return 1 if not_killed else 0


if __name__ == "__main__":
    sys.exit(main())
