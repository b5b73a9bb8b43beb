"""One run on several GPUs, by accelerate; on one, or none, the same script runs as one process.

    accelerate launch --config_file configs/accelerate/gpus.yaml examples/many_gpus.py my.txt
    accelerate launch --config_file configs/accelerate/two-cpus.yaml examples/many_gpus.py my.txt --steps 20

All processes read the same batches, each takes its rows, and gradients are pooled by the tokens that were counted: the
noise, and so the run, is that of one process. `diffkit train` under `accelerate launch` does so too, with checkpoints.
"""

from argparse import ArgumentParser

import torch
from accelerate import Accelerator
from torch import Generator

from diffkit import MaskedDiffusion, TrainConfig, build_model, fit, nelbo
from diffkit.data.batches import ChunkBatches
from diffkit.data.chunks import tokenize_corpus
from diffkit.data.corpus import load_corpus, split_documents
from diffkit.data.tokenizer import load_tokenizer

parser = ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("text", help="a .txt, .jsonl or .parquet file, or a folder of them")
parser.add_argument("--tokenizer", default="bert-base-uncased", help="a name on the Hub, or a folder")
parser.add_argument("--size", default="small", help="pico, nano, tiny, small or medium")
parser.add_argument("--steps", type=int, default=50_000)
parser.add_argument("--length", type=int, default=128)
parser.add_argument("--batch-size", type=int, default=512, help="sequences of a step, of all processes together")
parser.add_argument("--out", default="runs/many-gpus")
args = parser.parse_args()

on_gpu = torch.cuda.is_available()
accelerator = Accelerator(mixed_precision="bf16" if on_gpu else "no")
with accelerator.main_process_first():  # the others find the text prepared
    train, held_out = split_documents(load_corpus(args.text), validation_fraction=0.02, seed=0)
    tokenizer = load_tokenizer(args.tokenizer)
    chunks, rest = (tokenize_corpus(part, tokenizer, args.length) for part in (train, held_out))
x0 = rest.with_format("torch")[:256]["input_ids"]

torch.manual_seed(0)
process = MaskedDiffusion(len(tokenizer), tokenizer.mask_token_id)
model = build_model(process, args.size, max_length=args.length)
config = TrainConfig(steps=args.steps, precision="bf16" if on_gpu else "no", warmup=min(1000, args.steps // 10))
batches = ChunkBatches(chunks, args.batch_size, seed=0)
for record in fit(model, batches, config, accelerator=accelerator):
    if record.step % 100 == 0 or record.step == args.steps:
        accelerator.print(f"step {record.step}: {record.loss:.3f} nats, {record.tokens_per_second:,.0f} tokens/s")

if accelerator.is_main_process:
    print(f"held out: at most {nelbo(process, model, x0, rng=Generator().manual_seed(1)) / args.length} nats a token")
    model.save_pretrained(args.out)
    tokenizer.save_pretrained(args.out)
accelerator.end_training()
