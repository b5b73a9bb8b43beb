"""The attention that is drawn is the attention that the network uses."""

import pytest
import torch

from diffkit.course import plots
from diffkit.course.attention import attention_weights
from diffkit.network.attention import Attention
from diffkit.network.transformer import Denoiser, DenoiserConfig


def network(**settings):
    torch.manual_seed(3)
    shape = {"hidden_size": 16, "num_layers": 2, "num_heads": 4, "max_length": 9, **settings}
    return Denoiser(DenoiserConfig(vocab_size=11, mask_token_id=1, **shape)).eval()


@pytest.mark.parametrize("settings", [{}, {"rotary": False}, {"causal": True}, {"time": "adaln"}])
def test_mixing_the_values_with_the_weights_gives_what_the_layer_gives(settings):
    """Independent of the fused call: out(weights @ values) must equal the output of each Attention."""
    model = network(**settings)
    xt = torch.randint(11, (1, 9), generator=torch.Generator().manual_seed(0))
    seen = []
    hooks = [
        layer.register_forward_hook(lambda layer, given, output: seen.append((layer, given[0], output)))
        for layer in model.modules()
        if isinstance(layer, Attention)
    ]
    weights = attention_weights(model, xt, 10.0)
    for hook in hooks:
        hook.remove()
    assert weights.shape == (2, 4, 9, 9)
    torch.testing.assert_close(weights.sum(-1), torch.ones(2, 4, 9))
    for layer_weights, (layer, x, output) in zip(weights, seen, strict=True):
        values = layer.value(x).view(9, 4, -1).transpose(0, 1)  # (H, L, K)
        mixed = layer.out((layer_weights @ values).transpose(0, 1).reshape(1, 9, 16))
        torch.testing.assert_close(mixed, output)


def test_a_causal_model_never_looks_ahead():
    weights = attention_weights(network(causal=True), torch.arange(9)[None])
    assert (weights.triu(1) == 0).all()


def test_it_leaves_no_hook_behind_even_after_an_error():
    model = network()
    with pytest.raises(ValueError, match="sequences have"):
        attention_weights(model, torch.zeros(1, 10, dtype=torch.long))
    assert not any(layer._forward_pre_hooks for layer in model.modules())
    with pytest.raises(ValueError, match="one row"):
        attention_weights(model, torch.zeros(2, 9, dtype=torch.long))


def test_the_map_is_a_picture_that_says_what_it_shows():
    picture = plots.attention_map(torch.eye(3), ["a", "b", "c"], title="Head 1", alt="each looks at itself")
    assert picture.png.startswith(b"\x89PNG") and repr(picture) == "Picture: each looks at itself"
