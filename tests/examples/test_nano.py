"""The two one-file models: near twins, equal to the package where they overlap, exact where the answer is known."""

import ast
import difflib
import importlib.util
import runpy
import sys
from pathlib import Path

import pytest
import torch

from diffkit import MaskedDiffusion, load_language

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MICRO = load_language("micro")
NAMES = ("nano_mdlm", "nano_gpt")


def module_of(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def nano(monkeypatch):
    """The masked one, with the MASK of `micro`."""
    module = module_of("nano_mdlm")
    monkeypatch.setattr(module, "MASK", MICRO.mask_id)
    return module


def exact(xt):
    """The exact denoiser of `micro` as a network."""
    return MICRO.denoiser(MaskedDiffusion(MICRO.vocab_size, MICRO.mask_id))(xt, torch.zeros(len(xt)))


def test_four_lines_in_five_are_the_same():
    masked, left_to_right = ((EXAMPLES / f"{name}.py").read_text(encoding="utf-8").splitlines() for name in NAMES)
    blocks = difflib.SequenceMatcher(None, masked, left_to_right, autojunk=False).get_matching_blocks()
    assert sum(block.size for block in blocks) >= 0.8 * max(len(masked), len(left_to_right))
    assert max(len(masked), len(left_to_right)) <= 300


@pytest.mark.parametrize("name", NAMES)
def test_torch_alone_is_needed(name):
    tree = ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    roots = {(getattr(node, "module", None) or node.names[0].name).split(".")[0] for node in top}
    assert roots - sys.stdlib_module_names == {"torch"}


def test_the_same_weights_and_masks_give_the_loss_of_the_package(nano):
    torch.manual_seed(0)
    network = nano.Transformer(MICRO.vocab_size, MICRO.length, D=32, layers=2)
    for weights in network.parameters():  # they start at 0 where a block starts by doing nothing
        torch.nn.init.normal_(weights, std=0.2)
    x0 = MICRO.sample(64, torch.Generator().manual_seed(1))
    xt = nano.corrupt(x0, torch.rand(64))
    process = MaskedDiffusion(MICRO.vocab_size, MICRO.mask_id)
    want = process.token_loss(lambda xt, t, where: network(xt)[where], x0, xt, torch.zeros(64))
    torch.testing.assert_close(nano.nll(network, x0, xt), want, atol=1e-6, rtol=0)


def test_with_the_exact_denoiser_the_bound_is_the_entropy(nano):
    """Of every text: the mean over many draws is -log p."""
    torch.manual_seed(2)
    x0 = MICRO.sample(2000, torch.Generator().manual_seed(3))
    nats = nano.bound(exact, x0, draws=5)
    error = nats.std() / len(nats) ** 0.5
    assert abs(nats.mean() - MICRO.entropy()) < 5 * error


def test_with_the_exact_denoiser_the_training_loss_is_the_entropy(nano):
    """A token's share of it: dividing by the number of masks is the bound, too."""
    torch.manual_seed(6)
    losses = torch.stack([nano.loss(exact, MICRO.sample(64, torch.Generator().manual_seed(i))) for i in range(60)])
    error = losses.std() / len(losses) ** 0.5
    assert abs(losses.mean() - MICRO.entropy() / MICRO.length) < 5 * error and error < 0.01


def test_rows_without_a_mask_leave_the_gradient_whole(nano, monkeypatch):
    network = nano.Transformer(MICRO.vocab_size, MICRO.length, D=16, layers=1)
    monkeypatch.setattr(nano, "corrupt", lambda x0, t: torch.where(torch.arange(len(x0))[:, None] == 0, nano.MASK, x0))
    nano.loss(network, MICRO.sample(4, torch.Generator().manual_seed(7))).backward()
    assert all(weights.grad.isfinite().all() for weights in network.parameters() if weights.grad is not None)


def test_the_sampler_draws_from_the_language(nano):
    """400 steps reveal two tokens at once so seldom that 600 texts cannot tell (chi-square)."""
    torch.manual_seed(4)
    *_, x = nano.write(exact, torch.full((600, MICRO.length), MICRO.mask_id), steps=400)
    texts = MICRO.sample(2000, torch.Generator().manual_seed(5)).unique(dim=0)  # all 16 of them
    probs = MICRO.log_prob(texts).exp()
    counts = (x[:, None] == texts).all(2).sum(0).double()
    assert probs.sum().item() == pytest.approx(1) and counts.sum() >= 0.97 * len(x)
    statistic = ((counts - counts.sum() * probs) ** 2 / (counts.sum() * probs)).sum()
    assert torch.special.gammaincc(torch.tensor((len(texts) - 1) / 2).double(), statistic / 2) > 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_it_trains_saves_and_writes(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    text = "The cat sat on the mat. The dog ran to the park.\n" * 200
    Path("text.txt").write_text(text, encoding="utf-8")

    def printed(*words):
        monkeypatch.setattr(sys, "argv", [name, "text.txt", "--words", "10", "--length", "16", *words])
        runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
        return capsys.readouterr().out

    assert "bits a character" in printed("--steps", "60")
    assert "The cat" in printed("--load", "model.safetensors", "--fill", "The cat").split("░")[-1]
