"use strict";
/* One step of writing with a large vocabulary: logits only where they are needed.
 *
 * sampling/unmasking.py and logits.py for a network that writes in any order, processes/block.py for one with blocks.
 */

/** The least set of tokens whose probability reaches p, over their sum; the others get 0. probs: (V), p: in (0, 1]. */
function nucleus(probs, p) {
  if (p >= 1) return probs;
  const least = (1 - p) / probs.length; // all tokens below this together have less than 1 - p: none of them is needed
  const ranked = [...probs.keys()].filter((id) => probs[id] >= least).sort((a, b) => probs[b] - probs[a] || a - b);
  const kept = new Float64Array(probs.length);
  let sum = 0;
  for (const id of ranked) {
    if (sum >= p) break;
    kept[id] = probs[id];
    sum += probs[id];
  }
  return kept.map((x) => x / sum);
}

/** What the network predicts at some positions, one Float64Array of V probabilities for each. */
function predictAt(denoiser, canvas, where, { temperature, topP }) {
  const V = denoiser.config.vocab_size, logits = denoiser.forward(canvas, where);
  return where.map((_, n) => nucleus(softmax(withTemperature(logits.slice(n * V, (n + 1) * V), temperature)), topP));
}

/* How sure a prediction is, by the name of the order that begins with the surest. */
const SURENESS = {
  confidence: (row) => row.reduce((a, b) => Math.max(a, b)),
  entropy: (row) => row.reduce((sum, x) => (x > 0 ? sum + x * Math.log(x) : sum), 0),
};

/** Reveal some hidden positions. In random order they are chosen first, and the head computes logits for them alone.
 *
 * how: { maskId, temperature, topP, order ("random", "confidence" or "entropy"), step, steps }. Returns the positions
 * that were revealed and the ids drawn for them.
 */
function revealSome(denoiser, canvas, how, rng) {
  const isMasked = canvas.map((id) => id === how.maskId), hidden = [...canvas.keys()].filter((i) => isMasked[i]);
  const count = hidden.length - masksLeft(hidden.length, how.step, how.steps);
  let score = new Float64Array(canvas.length), known = new Map();
  if (how.order === "random") score = uniformNumbers(canvas.length, rng);
  else {
    predictAt(denoiser, canvas, hidden, how).forEach((row, n) => known.set(hidden[n], row));
    for (const [i, row] of known) score[i] = Math.round(1e4 * SURENESS[how.order](row));
  }
  const chosen = highest(score, isMasked, count), positions = hidden.filter((i) => chosen[i]);
  const rows = known.size ? positions.map((i) => known.get(i)) : predictAt(denoiser, canvas, positions, how);
  const u = uniformNumbers(canvas.length, rng);
  return { positions, ids: positions.map((i, n) => inverseCdf(rows[n], u[i])) };
}

/** Reveal some hidden positions of the first block that has any, and go on to the next if more are due.
 *
 * For a network with blocks; how and the answer as in revealSome, but within a block the order is random. What comes
 * behind the block is not read.
 */
function revealBlocks(denoiser, start, how, rng) {
  const { block } = denoiser.config, canvas = [...start], positions = [];
  const masks = canvas.filter((id) => id === how.maskId).length, count = masks - masksLeft(masks, how.step, how.steps);
  while (positions.length < count) {
    const end = (Math.floor(canvas.indexOf(how.maskId) / block) + 1) * block;
    const isNext = canvas.map((id, i) => id === how.maskId && i < end);
    const score = uniformNumbers(canvas.length, rng).map((x) => -x), u = uniformNumbers(canvas.length, rng);
    const chosen = highest(score, isNext, count - positions.length), now = [...canvas.keys()].filter((i) => chosen[i]);
    const rows = predictAt(denoiser, canvas.slice(0, end), now, how);
    now.forEach((i, n) => { canvas[i] = inverseCdf(rows[n], u[i]); });
    positions.push(...now);
  }
  return { positions, ids: positions.map((i) => canvas[i]) };
}
