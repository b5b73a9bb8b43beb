"use strict";
/* Training: hide words, predict them, change the weights a little so that the hidden words surprise less. */

const START_STD = 0.3; // of every random weight; larger than usual, as sums of 16 numbers stay small
const RATE = 1e-2, WARM_STEPS = 30; // AdamW's step size: it rises to RATE, then falls in a straight line to 0
const BATCH = 40; // texts in a step: each number of hidden words equally often
const QUESTIONS = 1000; // of an examination, at most
const MEMORY = [0.9, 0.99], DECAY = 0.01; // how long AdamW remembers gradients and their squares; pull towards 0

/** Which of L positions are hidden: exactly `count`, every choice equally likely. L booleans. */
function choose(L, count, rng) {
  return highest(uniformNumbers(L, rng), new Array(L).fill(true), count);
}

/** One row for each text: what the network sees, what was there, and what each surprise weighs.
 *
 * With k words hidden, the mean surprise of these k is an estimate of the bound in nats a token; averaged over k = 1..L
 * it is the bound itself, exactly (arXiv:2406.03736; count_loss in processes/masked.py).
 * Args: texts: arrays of L ids; hidden: for each text L booleans; shares: how much each text counts.
 */
function rowsOf(texts, hidden, shares, maskId) {
  const targets = texts.flat(), isHidden = hidden.flat();
  const seen = targets.map((id, n) => (isHidden[n] ? maskId : id));
  const weights = hidden.flatMap((row, b) => row.map((one) => (one ? shares[b] / trues(row) : 0)));
  return { seen, targets, weights };
}

/** A batch of random texts, with 1, 2, .. L words hidden in turn. */
function batchOf(language, size, rng) {
  const texts = Array.from({ length: size }, () => language.draw(rng));
  const hidden = texts.map((_, b) => choose(language.length, 1 + (b % language.length), rng));
  return rowsOf(texts, hidden, texts.map(() => 1 / size), language.maskId);
}

/** The loss in nats a token; the gradients lie in the weights afterwards, if a tape is played back. */
function lossOf(network, tape, { seen, targets, weights }, language) {
  const logits = network.forward(tape, seen, language.length);
  return tape.crossEntropy(logits, targets, weights, language.maskId);
}

/** Adam with decoupled weight decay (arXiv:1711.05101): each step moves a weight about `rate` downhill. */
class AdamW {
  constructor(weights) {
    this.tensors = [...weights.values()];
    this.means = this.tensors.map(({ data }) => new Float64Array(data.length));
    this.squares = this.tensors.map(({ data }) => new Float64Array(data.length));
    this.steps = 0;
  }

  step(rate) {
    const [a, b] = MEMORY;
    this.steps += 1;
    const grownA = 1 - a ** this.steps, grownB = 1 - b ** this.steps; // the averages began at 0
    this.tensors.forEach(({ data, grad }, n) => {
      const mean = this.means[n], square = this.squares[n];
      for (let i = 0; i < data.length; i++) {
        mean[i] = a * mean[i] + (1 - a) * grad[i];
        square[i] = b * square[i] + (1 - b) * grad[i] ** 2;
        data[i] -= rate * (DECAY * data[i] + mean[i] / grownA / (Math.sqrt(square[i] / grownB) + 1e-8));
      }
      grad.fill(0);
    });
  }
}

/** The rate of AdamW in step `step` of `steps`, from 0. */
function rateAt(step, steps) {
  return RATE * Math.min((step + 1) / WARM_STEPS, (steps - step) / steps);
}

/** A training that goes on for as long as it is asked to. */
class Training {
  constructor(language, seed, steps) {
    const config = { ...SHAPE, vocab_size: language.words.length, mask_token_id: language.maskId,
      max_length: language.length, sharpest: SHARPEST };
    Object.assign(this, { language, steps, rng: new TorchGenerator(seed), done: 0 });
    this.network = Network.random(config, this.rng);
    this.optimizer = new AdamW(this.network.weights);
    const every = everyQuestion(language);
    this.questions = every ?? batchOf(language, QUESTIONS, new TorchGenerator(0));
    this.isExact = every !== null; // whether an examination asks all there is to ask
  }

  /** One step: hide, predict, look where it surprised, change the weights. Returns the loss. */
  step() {
    const tape = new Tape(), batch = batchOf(this.language, BATCH, this.rng);
    const nats = lossOf(this.network, tape, batch, this.language);
    tape.backward();
    this.optimizer.step(rateAt(this.done, this.steps));
    this.done += 1;
    return nats;
  }

  /** The bound of the network as it is now, nats a token, from the same questions every time. */
  examine() {
    return lossOf(this.network, new Tape(), this.questions, this.language);
  }
}

/** Every text with every choice of hidden words, each as often as it happens; null if that is too many. */
function everyQuestion({ texts, probs, length: L, maskId }) {
  if (texts.length * (2 ** L - 1) > QUESTIONS) return null;
  const choices = Array.from({ length: 2 ** L - 1 }, (_, n) => bits(n + 1, L));
  const ways = choices.map((row) => choices.filter((other) => trues(other) === trues(row)).length);
  const asked = texts.flatMap((text, n) =>
    choices.map((hidden, c) => ({ text, hidden, share: probs[n] / (L * ways[c]) })));
  return rowsOf(asked.map((one) => one.text), asked.map((one) => one.hidden), asked.map((one) => one.share), maskId);
}

/** The lowest L bits of a number, as booleans. */
function bits(number, L) {
  return Array.from({ length: L }, (_, i) => ((number >> i) & 1) === 1);
}

function trues(booleans) {
  return booleans.filter(Boolean).length;
}
