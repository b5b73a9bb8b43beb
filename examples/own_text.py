"""Your own text from end to end: documents, tokenizer, training, evaluation, samples, infilling.

    python examples/own_text.py my.txt --steps 2000    # a quarter of an hour to an hour of one core

A blank line ends a document; in a text without blank lines every line is one. This is what `diffkit data`, `train`,
`evaluate`, `sample` and `infill` do, in one file; they also read the model that it leaves in runs/own-text.
"""

import math
from argparse import ArgumentParser

from torch import Generator
from tqdm import tqdm

from diffkit import MaskedDiffusion, TrainConfig, build_model, fit, infill, nelbo, sample
from diffkit.data.batches import ChunkBatches
from diffkit.data.chunks import texts_of, tokenize_corpus
from diffkit.data.corpus import load_corpus, split_documents
from diffkit.data.tokenizer import canvas_from_text, train_tokenizer

parser = ArgumentParser(description=__doc__.split("\n")[0])
parser.add_argument("text", help="a .txt, .jsonl or .parquet file, or a folder of them")
parser.add_argument("--out", default="runs/own-text")
parser.add_argument("--steps", type=int, default=2000)
parser.add_argument("--length", type=int, default=128, help="tokens in a sequence")
parser.add_argument("--vocabulary", type=int, default=2048, help="tokens that the tokenizer learns")
parser.add_argument("--size", default="nano", help="pico, nano, tiny, small or medium")
parser.add_argument("--fill", default="The ___{3} was ___{2}.", help="a text with blanks")
args = parser.parse_args()
rng = Generator().manual_seed(0)

# Prepare: documents are split first and cut into sequences afterwards, so that nothing held out is learned.
train, held_out = split_documents(load_corpus(args.text), validation_fraction=0.05, seed=0)
tokenizer = train_tokenizer((row["text"] for row in train), args.vocabulary)
batches = ChunkBatches(tokenize_corpus(train, tokenizer, args.length), batch_size=32, seed=0)
x0 = tokenize_corpus(held_out, tokenizer, args.length).with_format("torch")[:256]["input_ids"]  # (N, L)

# Train: masked diffusion by the exact-count bound, Muon for the matrices.
process = MaskedDiffusion(len(tokenizer), tokenizer.mask_token_id, schedule="linear")
model = build_model(process, args.size, max_length=args.length)
config = TrainConfig(steps=args.steps, objective="count_bound", optimizer="muon", lr=3e-3, warmup=50, decay=0.6)
for record in tqdm(fit(model, batches, config), total=args.steps, unit="step"):
    if record.step % 200 == 0:
        tqdm.write(f"step {record.step}: training loss {record.loss:.3f} nats a token")
model.save_pretrained(args.out)
tokenizer.save_pretrained(args.out)

# Evaluate: a bound on -log p of text that the model has not seen, also in a unit that all tokenizers share.
bound = nelbo(process, model, x0, rng=rng)  # nats a sequence
characters = sum(map(len, texts_of(x0, tokenizer))) / len(x0)
print(f"held out: {bound / args.length} nats a token, {bound / characters / math.log(2)} bits a character, at most")

# Sample, and fill in.
how = {"steps": args.length, "order": "random", "temperature": 0.8, "rng": rng}
blanks = canvas_from_text(args.fill, tokenizer, args.length)
for ids in (sample(process, model, shape=(1, args.length), **how), infill(process, model, blanks, **how)):
    print("---", tokenizer.decode(ids[0]), sep="\n")
