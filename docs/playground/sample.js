"use strict";
/* How a story is written: diffkit/sampling/sampler.py and diffkit/random.py in JavaScript, one text at a time.
 *
 * The random numbers are those of torch.Generator, so a seed writes the same story here as in diffkit.
 */

/** The Mersenne twister as torch's CPU generator runs it (Matsumoto and Nishimura 1998). */
class TorchGenerator {
  /** seed: a whole number; torch, too, takes its lowest 32 bits. */
  constructor(seed) {
    this.state = new Uint32Array(624);
    this.state[0] = seed % 2 ** 32;
    for (let i = 1; i < 624; i++) {
      const before = this.state[i - 1];
      this.state[i] = Math.imul(1812433253, before ^ (before >>> 30)) + i;
    }
    this.next = 624;
  }

  refill() {
    const { state } = this;
    for (let i = 0; i < 624; i++) {
      const mixed = (state[i] & 0x80000000) | (state[(i + 1) % 624] & 0x7fffffff);
      state[i] = state[(i + 397) % 624] ^ (mixed >>> 1) ^ (mixed & 1 ? 0x9908b0df : 0);
    }
    this.next = 0;
  }

  /** 32 random bits. */
  bits() {
    if (this.next === 624) this.refill();
    let y = this.state[this.next++];
    y ^= y >>> 11;
    y ^= (y << 7) & 0x9d2c5680;
    y ^= (y << 15) & 0xefc60000;
    return (y ^ (y >>> 18)) >>> 0;
  }

  /** A number from U[0, 1) of 53 bits, as torch.rand(dtype=torch.float64). */
  uniform() {
    const high = this.bits() & 0x1fffff;
    return (high * 2 ** 32 + this.bits()) / 2 ** 53;
  }
}

/** n numbers from U[0, 1), in order; rng: anything with uniform(). */
function uniformNumbers(n, rng) {
  return Float64Array.from({ length: n }, () => rng.uniform());
}

/** Where the cumulative sum of the weights passes the share u of their total; random.inverse_cdf. */
function inverseCdf(weights, u) {
  const total = weights.reduce((a, b) => a + b, 0);
  let sum = 0;
  const found = weights.findIndex((weight) => (sum += weight) > u * total);
  return found < 0 ? weights.length - 1 : found;
}

/** The `count` positions of highest score among those of `among` (L booleans); of equals the lower one. L booleans. */
function highest(score, among, count) {
  const positions = [...score.keys()].filter((i) => among[i]);
  const chosen = new Set(positions.sort((a, b) => score[b] - score[a] || a - b).slice(0, count));
  return among.map((_, i) => chosen.has(i));
}

/** Logits at a temperature, (V) Float64Array; 0 keeps the most likely token alone. */
function withTemperature(logits, temperature) {
  if (temperature > 0) return Float64Array.from(logits, (x) => Math.fround(x / temperature));
  const best = logits.indexOf(logits.reduce((a, b) => Math.max(a, b), -Infinity));
  return Float64Array.from(logits, (x, v) => (v === best ? x : -Infinity));
}

/** The prediction for each position: a hidden one has its softmax, a visible one is certain. L rows of V. */
function predictions(logits, canvas, maskId, temperature) {
  const V = logits.length / canvas.length;
  return canvas.map((id, i) => {
    if (id !== maskId) return new Float64Array(V).fill(1, id, id + 1);
    const row = logits.slice(i * V, (i + 1) * V);
    row[maskId] = -Infinity;
    return softmax(withTemperature(row, temperature));
  });
}

/* Unmasking orders: L scores, highest first. Saturated predictions differ by rounding noise, so they are rounded. */
const ORDERS = {
  random: (probs, rng) => uniformNumbers(probs.length, rng),
  confidence: (probs) => Float64Array.from(probs, (row) => Math.round(1e4 * row.reduce((a, b) => Math.max(a, b)))),
  left_to_right: (probs) => Float64Array.from(probs, (_, i) => -i),
};

/** Masks that stay hidden when step `step` of `steps` (from 0) is done: the linear plan, the same number every step. */
function masksLeft(masks, step, steps) {
  return Math.floor((masks * (steps - step - 1)) / (steps - step) + 1e-9);
}

/** One reveal step; unmasking.Unmasking.step. Positions are chosen before words are drawn.
 *
 * logits: (L, V) for the canvas, an array of L ids; how: { maskId, temperature, order, step, steps }.
 * Returns the next canvas, and which positions were revealed.
 */
function reveal(logits, canvas, how, rng) {
  const probs = predictions(logits, canvas, how.maskId, how.temperature);
  const isMasked = canvas.map((id) => id === how.maskId);
  const masks = isMasked.filter(Boolean).length;
  const score = ORDERS[how.order](probs, rng);
  const revealed = highest(score, isMasked, masks - masksLeft(masks, how.step, how.steps));
  const u = uniformNumbers(canvas.length, rng); // one for each position, used or not: diffkit draws them so
  return { canvas: canvas.map((id, i) => (revealed[i] ? inverseCdf(probs[i], u[i]) : id)), revealed };
}
