"""A process and its network as one model: built, saved as one folder, loaded."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers import logging as transformers_logging

from diffkit.data.tokenizer import load_tokenizer
from diffkit.network.attention import Block
from diffkit.network.cache import CachedDenoiser, KeyValueCache
from diffkit.network.dit import DiT, DiTConfig
from diffkit.network.pretrained import PretrainedDenoiser, PretrainedSettings, borrow
from diffkit.network.transformer import SIZES, Denoiser, DenoiserConfig
from diffkit.paths import PRETRAINED
from diffkit.processes import process_from
from diffkit.processes.base import Denoise, Network, Process
from diffkit.processes.gaussian.plaid import SoftTokenPlaid
from diffkit.processes.masked import MaskedDiffusion

UNREADABLE = (OSError, RuntimeError, SafetensorError, ValueError, KeyError, TypeError, AttributeError, ArithmeticError)
WRAPPED = r"\b(_orig_mod\.|module\.)+"  # what torch.compile and DDP put into the names of weights
NETWORKS: dict[str, tuple[type[PretrainedConfig], type[Denoiser | DiT]]] = {
    "transformer": (DenoiserConfig, Denoiser), "dit": (DiTConfig, DiT),
}  # fmt: skip
SETTINGS = {
    name: [n for n in inspect.signature(config.__init__).parameters if n not in ("self", "kwargs")]
    for name, (config, _) in NETWORKS.items()
}


class DiffusionConfig(PretrainedConfig):
    """A process and a network: `process` holds the settings of a Process, `denoiser` those of a DenoiserConfig.

    With "network": "dit" among the latter they are those of a DiTConfig.

    `language` names the story language that the model was trained on, None for real text. `split` says which documents
    of a text were held out: {"fraction", "seed"}, see `data.corpus.split_documents`.
    """

    model_type = "diffkit-diffusion"

    def __init__(
        self, process: dict[str, Any] | None = None, denoiser: dict[str, Any] | None = None,
        language: str | None = None, split: dict[str, float] | None = None, **kwargs: Any,
    ):  # fmt: skip
        self.process, self.denoiser, self.language, self.split = process or {}, denoiser or {}, language, split
        super().__init__(**kwargs)


class DiffusionModel(PreTrainedModel):
    """A process with its network, saved and loaded as one folder: model(xt, t) -> logits.

    `process` corrupts text and reverses it; `denoiser` predicts. The model is a denoiser itself, so a sampler takes it.
    `save_pretrained` and `from_pretrained` are those of transformers; `build_model` makes a fresh one.

    Args:   config: settings of the process and of the network; whatever it lacks has a default.
    Raises: ValueError for an unknown process or setting.

    >>> from diffkit.processes.masked import MaskedDiffusion
    >>> model = build_model(MaskedDiffusion(vocab_size=10, mask_id=1), "pico", max_length=6)
    >>> model(torch.tensor([[5, 1, 7, 1, 1, 2]]), t=500.0).shape
    torch.Size([1, 6, 10])
    """

    config_class = DiffusionConfig
    config: DiffusionConfig
    base_model_prefix = "model"

    def __init__(self, config: DiffusionConfig):
        super().__init__(config)
        self.process = process_from(config.process)
        self.denoiser = network_from(config.denoiser)
        self.post_init()

    @classmethod
    def from_pretrained(cls, name: str | Path, *args: Any, **settings: Any) -> Any:
        """As in transformers, a folder or a name on the Hub with `revision`; only from safetensors.

        The prefixes of torch.compile and DDP are taken off the names of weights.
        """
        return super().from_pretrained(
            name, *args, **{"use_safetensors": True, "key_mapping": {WRAPPED: ""}} | settings
        )

    def _init_weights(self, module: nn.Module) -> None:
        self.denoiser._init_weights(module)

    @property
    def labels(self) -> int:
        """How many labels its texts can be conditioned on, 0 for none. This number also stands for "any"."""
        return self.denoiser.config.labels

    def forward(
        self, xt: Tensor, t: Tensor | float, where: Tensor | None = None, cache: KeyValueCache | None = None,
        label: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """As Denoiser.forward: (B, L) ids and times to (B, L, V) logits, MASK at -inf.

        A self-conditioned network also reads its own first estimate: of all texts, in training of every fourth.
        """

        def network(zt: Tensor, t: Tensor | float, where: Tensor | None = None) -> Tensor:
            return self.denoiser(zt, t, where, cache, None if label is None else label[: len(zt)])

        return self.process.call_network(network, xt, cast(Tensor, t), where, self.training)

    def with_cache(self) -> Denoise:
        """The model as samplers call it: with cached keys and values if it looks left only and is not given t."""
        config = self.denoiser.config
        looks_left = isinstance(self.denoiser, Denoiser) and (config.causal or config.block)
        return CachedDenoiser(self, config.block or 1) if looks_left and config.time == "none" else self


def network_from(settings: dict[str, Any]) -> Any:
    """A network without trained weights, of the kind that is named; one of transformers where there is a `backbone`."""
    if "backbone" in settings:
        return PretrainedDenoiser(PretrainedSettings(**settings))
    shape = dict(settings)
    kind = shape.pop("network", "transformer")
    check_network_settings(shape, kind)
    config, network = NETWORKS[kind]
    return network(config(**shape))


def check_network_settings(settings: dict[str, Any], kind: str = "transformer") -> None:
    """Raise ValueError for an unknown kind of network, and for a setting that it does not have."""
    if kind not in NETWORKS:
        raise ValueError(f"DiffusionModel: the networks are {sorted(NETWORKS)}, got {kind!r}.")
    if unknown := sorted({*settings} - {*SETTINGS[kind]}):
        raise ValueError(f"{NETWORKS[kind][0].__name__}: the settings are {SETTINGS[kind]}, got {unknown}.")


def build_model(
    process: Process, size: str | dict[str, Any] = "nano", *, language: str | None = None, **settings: Any
) -> DiffusionModel:
    """A fresh model for a process.

    Args:   size: a name from SIZES or a dict of DenoiserConfig settings; `settings` go to DenoiserConfig on top of it.
            language: name of the story language it will be trained on, to be kept with the model.
    Raises: ValueError for an unknown size or setting.
    """
    if isinstance(size, str) and size not in SIZES:
        raise ValueError(f"build_model: the sizes are {sorted(SIZES)}, got {size!r}.")
    shape = SIZES[size] if isinstance(size, str) else size
    head, input_size, causal, block = process.network
    given = {
        "vocab_size": process.vocab_size, "T": process.T, "head_size": head, "input_size": input_size, "causal": causal,
        "block": block, "mask_token_id": process.mask_id if process.predicts_tokens else None,
    }  # fmt: skip
    check_network_settings(shape | settings)
    network = DenoiserConfig(**given | shape | settings)
    # Defaults too: a saved model must not change with them.
    whole = {name: getattr(network, name) for name in SETTINGS["transformer"]}
    return DiffusionModel(DiffusionConfig(process=process.settings(), denoiser=whole, language=language))


def load_pretrained(
    name_or_folder: str | Path, process: Callable[[int, int], Process] = MaskedDiffusion, *, length: int = 128,
    add_mask: bool = False, lora: int = 0, anneal: int = 0,
) -> tuple[DiffusionModel, PreTrainedTokenizerBase]:  # fmt: skip
    """A language model of transformers (BERT, RoBERTa, ModernBERT; GPT-2, Llama, Qwen) as a diffusion model.

    It can sample at once, but badly; train it on with `fit` or `diffkit train --model.pretrained`.

    Args:    name_or_folder: a name on the Hub, or a folder with model and tokenizer; only safetensors are read.
             process: its class, of those that mask or change tokens: (vocab_size, mask_id) -> Process.
             length: longest text in tokens; add_mask: give a tokenizer without MASK one, and the tables a row for it;
             lora: train matrices of this rank beside the frozen ones, 0: train all; anneal: training passes until a
             left-to-right model sees all of the future, 0: at once (see PretrainedDenoiser).
    Returns: the model in evaluation mode, on the CPU, and its tokenizer.
    Raises:  OSError if there is none; ValueError for a tokenizer without MASK, another kind of model or process, or a
             text that is too long for it.
    """
    tokenizer = load_tokenizer(name_or_folder, add_mask=add_mask)
    made = process(len(tokenizer), tokenizer.mask_token_id)
    if made.network != Network(made.vocab_size):
        raise ValueError(
            f"load_pretrained: {type(made).__name__} needs a network of its own; a pretrained one suits "
            "MaskedDiffusion and others that read one text of tokens."
        )
    with quiet():
        denoiser = borrow(str(name_or_folder), tokenizer, max_length=length, lora=lora, anneal=anneal)
    config = DiffusionConfig(process=made.settings(), denoiser=asdict(denoiser.config))
    with torch.device("meta"):  # the frame alone, without memory and random weights
        model = DiffusionModel(config)
    model.process, model.denoiser = made, denoiser
    return model.eval(), tokenizer


def model_folder(name_or_folder: str | Path) -> Path:
    """The folder of a model: the given one or, where that holds no model, that of the shipped model of this name."""
    path = Path(name_or_folder).expanduser()
    is_name = len(path.parts) == 1 and path.name != ".."  # anything else stays the path that it is
    is_shipped = is_name and (PRETRAINED / path / "config.json").is_file()
    return PRETRAINED / path if is_shipped and not (path / "config.json").is_file() else path


def fingerprint(name_or_folder: str | Path) -> str:
    """SHA-256 of a model's weights, to tell whether a stored table belongs to a model."""
    weights = model_folder(name_or_folder) / "model.safetensors"
    if not weights.is_file():
        raise FileNotFoundError(f"fingerprint: there is no {weights}. Give the folder or the name of a saved model.")
    return hashlib.sha256(weights.read_bytes()).hexdigest()


def load_model(name_or_folder: str | Path) -> DiffusionModel:
    """A trained model, ready to sample: a folder, or the name of one that ships with the project, such as "tales-mdlm".

    Only safetensors are read, never a pickle.

    Args:   name_or_folder: a path, or the name of a folder in data/pretrained.
    Returns: the model in evaluation mode, on the CPU; `load_with_tokenizer` also loads its tokenizer.
    Raises: FileNotFoundError if there is no such folder; ValueError if it holds no model of ours, weights that are no
            numbers, or a damaged model.
    """
    folder = model_folder(name_or_folder)
    if not (folder / "config.json").is_file():
        shipped = sorted(path.name for path in PRETRAINED.glob("*") if (path / "config.json").is_file())
        raise FileNotFoundError(
            f"load_model: {str(name_or_folder)!r} is no folder with a config.json, nor one of the shipped models "
            f"{shipped}. Check the path, or train one with `diffkit train`."
        )
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"load_model: {folder} has no .safetensors weights; pickled weights are never loaded.")
    try:
        return _read(folder).eval()
    except UNREADABLE as error:
        raise ValueError(
            f"load_model: {folder} is damaged or not whole, or no model of diffkit: {error}. Save or copy it again."
        ) from error


def _read(folder: Path) -> DiffusionModel:
    """The model in a folder.

    Of the settings only our own are kept: some that transformers knows fetch code (kernels, quantisation). Weights that
    are stored in 16 bits compute in 32.
    """
    settings = DiffusionConfig.get_config_dict(folder)[0]
    if settings.get("model_type") != DiffusionConfig.model_type:
        raise ValueError(f"it holds a {settings.get('model_type')!r} model, expected {DiffusionConfig.model_type!r}")
    index = folder / "model.safetensors.index.json"
    shards = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values() if index.is_file() else ()
    if not all(Path(shard).name == shard and shard.endswith(".safetensors") for shard in shards):
        raise ValueError("its index names other files than its own .safetensors; pickled weights are never loaded")
    config = DiffusionConfig(**{name: settings.get(name) for name in ("process", "denoiser", "language", "split")})
    with quiet():
        model, info = DiffusionModel.from_pretrained(
            folder, config=config, output_loading_info=True, ignore_mismatched_sizes=True, dtype=torch.float32
        )
    reshaped = {name for name, *_ in info["mismatched_keys"]}
    if strange := sorted({*info["missing_keys"], *info["unexpected_keys"]} | reshaped):
        raise ValueError(f"{len(strange)} weights do not fit its config.json, the first is {strange[0]}")
    if broken := [name for name, weight in model.named_parameters() if not weight.isfinite().all()]:
        raise ValueError(
            f"its weights are not all numbers: {broken[0]} holds NaN or infinity, as a diverged run leaves"
        )
    return model


def held_out_split(model: DiffusionModel, fraction: float | None, seed: int) -> tuple[float, int]:
    """The fraction and the seed of documents that a model was not trained on, for `data.corpus.split_documents`.

    Args:   fraction: 1 for all of a text that the model has never seen, None for as many as training held out;
            seed: of the split where the model does not say (it was saved before models did).
    Raises: ValueError for a fraction of which training has seen a part.
    """
    split = model.config.split
    if split is None or fraction == 1:
        return 0.01 if fraction is None else fraction, seed
    fraction = split["fraction"] if fraction is None else fraction
    if fraction > split["fraction"]:
        raise ValueError(
            f"held_out_split: training held out a share of {split['fraction']:g}, and learned from the rest of "
            f"{fraction:g}. Choose a smaller one, or 1 for a text that the model has never seen."
        )
    return fraction, int(split["seed"])


def check_tokenizer(model: DiffusionModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise ValueError unless a tokenizer has the vocabulary size and the MASK of a model."""
    known = (model.config.process["vocab_size"], model.config.process["mask_id"])
    found = (len(tokenizer), tokenizer.mask_token_id)
    if found != known:
        raise ValueError(
            f"check_tokenizer: the model {str(model.name_or_path)!r} has {known[0]} ids, MASK being {known[1]}, "
            f"but the tokenizer has {found[0]}, MASK being {found[1]}. Use the one it was trained with."
        )


def load_with_tokenizer(
    model: DiffusionModel | str | Path, tokenizer: PreTrainedTokenizerBase | None = None
) -> tuple[DiffusionModel, PreTrainedTokenizerBase]:
    """A model, loaded if it is a name or a folder, and its tokenizer. Raises as `load_model` and `check_tokenizer`."""
    trained = model if isinstance(model, DiffusionModel) else load_model(model)
    tokenizer = tokenizer or load_tokenizer(trained.name_or_path)
    check_tokenizer(trained, tokenizer)
    return trained, tokenizer


@torch.no_grad()
def start_from(model: DiffusionModel, name_or_folder: str | Path) -> None:
    """Load the weights of a trained model into a new one; what only the new one has stays as it is.

    A network that reads soft tokens, (B, L, V) probabilities, mixes the embeddings of one that reads tokens; and where
    the time is new (adaln), every gate is opened, so that the network answers as before until it has learned the time.

    Raises: as load_model; ValueError if the trained model has a weight that does not fit.
    """
    trained = load_model(name_or_folder)
    given, own, table = trained.state_dict(), model.state_dict(), "denoiser.token_embedding.weight"
    reads_tokens, reads_soft_tokens = not trained.process.network.input_size, isinstance(model.process, SoftTokenPlaid)
    if reads_tokens and reads_soft_tokens and table in given:
        given[table] = given[table].T
    strange = [name for name, value in given.items() if name not in own or own[name].shape != value.shape]
    if strange:
        raise ValueError(
            f"start_from: {len(strange)} weights of {str(name_or_folder)!r} do not fit this model, the first is "
            f"{strange[0]} {tuple(given[strange[0]].shape)}. Choose the same size, vocabulary and length."
        )
    model.load_state_dict(given, strict=False)
    for name, block in model.named_modules():
        if isinstance(block, Block) and f"{name}.modulation.bias" not in given:
            block.open_gates()


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars or tables of transformers while models are saved and loaded: notebooks would store them."""
    shown, verbosity = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if shown:
            transformers_logging.enable_progress_bar()


REGISTERED: list[tuple[Any, Any]] = [*NETWORKS.values(), (DiffusionConfig, DiffusionModel)]
for config_class, model_class in REGISTERED:
    AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
    AutoModel.register(config_class, model_class, exist_ok=True)
