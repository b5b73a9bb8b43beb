"use strict";
/* One step of writing with a large vocabulary: logits only where they are needed; sampling/unmasking.py, logits.py. */

/** The least set of tokens whose probability reaches p, as weights; the others get 0. probs: (V), p: in (0, 1]. */
function nucleus(probs, p) {
  if (p >= 1) return probs;
  const ranked = [...probs.keys()].sort((a, b) => probs[b] - probs[a] || a - b);
  const kept = new Float64Array(probs.length);
  let sum = 0;
  for (const id of ranked) {
    if (sum >= p) break;
    kept[id] = probs[id];
    sum += probs[id];
  }
  return kept;
}

/** What the network predicts at some positions, one Float64Array of V weights for each. */
function predictAt(denoiser, canvas, where, { temperature, topP }) {
  const V = denoiser.config.vocab_size, logits = denoiser.forward(canvas, where);
  return where.map((_, n) => nucleus(softmax(withTemperature(logits.slice(n * V, (n + 1) * V), temperature)), topP));
}

/** Reveal some hidden positions. In random order they are chosen first, and the head computes logits for them alone.
 *
 * how: { maskId, temperature, topP, order ("random" or "confidence"), step, steps }. Returns the positions that were
 * revealed and the ids drawn for them.
 */
function revealSome(denoiser, canvas, how, rng) {
  const isMasked = canvas.map((id) => id === how.maskId), hidden = [...canvas.keys()].filter((i) => isMasked[i]);
  const count = hidden.length - masksLeft(hidden.length, how.step, how.steps);
  let score = new Float64Array(canvas.length), known = new Map();
  if (how.order === "random") score = uniformNumbers(canvas.length, rng);
  else {
    predictAt(denoiser, canvas, hidden, how).forEach((row, n) => known.set(hidden[n], row));
    for (const [i, row] of known) score[i] = Math.round(1e4 * row.reduce((a, b) => Math.max(a, b)));
  }
  const chosen = highest(score, isMasked, count), positions = hidden.filter((i) => chosen[i]);
  const rows = known.size ? positions.map((i) => known.get(i)) : predictAt(denoiser, canvas, positions, how);
  const u = uniformNumbers(canvas.length, rng);
  return { positions, ids: positions.map((i, n) => inverseCdf(rows[n], u[i])) };
}
