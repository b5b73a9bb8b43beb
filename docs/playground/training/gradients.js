"use strict";
/* How a network learns what to change: each operation of ../model.js again, and beside it its gradient.
 *
 * A Tape computes and takes notes. Played backward, it tells how the loss changes with every number that went in: the
 * chain rule, one operation at a time. Arrays are flat Float64Arrays, row after row; N rows are B texts of L positions.
 * tests/site/test_training_page.py holds the loss and every gradient to PyTorch's.
 */

/** Numbers, and how much the loss rises with each of them. */
class Tensor {
  constructor(data) {
    this.data = data;
    this.grad = new Float64Array(data.length);
  }
}

class Tape {
  constructor() {
    this.notes = []; // how each operation passes its gradient on, in the order in which they were computed
  }

  /** A result of `size` zeros, and how its gradient will reach what it was made of. */
  result(size, passOn) {
    const out = new Tensor(new Float64Array(size));
    this.notes.push(() => passOn(out));
    return out;
  }

  backward() {
    while (this.notes.length) this.notes.pop()();
  }

  /** The rows of a table (V, D) that have these numbers: (N, D). */
  lookUp(ids, table, D) {
    const out = this.result(ids.length * D, ({ grad }) => {
      for (let i = 0; i < grad.length; i++) table.grad[ids[Math.floor(i / D)] * D + (i % D)] += grad[i];
    });
    for (let i = 0; i < out.data.length; i++) out.data[i] = table.data[ids[Math.floor(i / D)] * D + (i % D)];
    return out;
  }

  /** a + b: both feel all of the change. */
  add(a, b) {
    const out = this.result(a.data.length, ({ grad }) => {
      for (let i = 0; i < grad.length; i++) {
        a.grad[i] += grad[i];
        b.grad[i] += grad[i];
      }
    });
    for (let i = 0; i < out.data.length; i++) out.data[i] = a.data[i] + b.data[i];
    return out;
  }

  /** rows (N, I) times the transposed weight (O, I), plus bias (O) if there is one: (N, O). */
  linear(rows, weight, bias, I) {
    const x = rows.data, w = weight.data, N = x.length / I, O = w.length / I;
    const out = this.result(N * O, ({ grad }) => this.passLinear(rows, weight, bias, grad, I)), y = out.data;
    for (let n = 0; n < N; n++) {
      for (let o = 0; o < O; o++) {
        let sum = bias ? bias.data[o] : 0;
        for (let i = 0; i < I; i++) sum += w[o * I + i] * x[n * I + i];
        y[n * O + o] = sum;
      }
    }
    return out;
  }

  /** out = sum of w x: the change of w is x times that of out, the change of x is w times it. */
  passLinear(rows, weight, bias, grad, I) {
    const O = weight.data.length / I, N = rows.data.length / I;
    const x = rows.data, w = weight.data, dx = rows.grad, dw = weight.grad;
    for (let n = 0; n < N; n++) {
      for (let o = 0; o < O; o++) {
        const g = grad[n * O + o];
        if (bias) bias.grad[o] += g;
        for (let i = 0; i < I; i++) {
          dw[o * I + i] += g * x[n * I + i];
          dx[n * I + i] += g * w[o * I + i];
        }
      }
    }
  }

  /** Every row of D = weight.length numbers to mean 0 and variance 1, then scaled. */
  layerNorm(rows, weight) {
    const D = weight.data.length, size = rows.data.length, normal = new Float64Array(size);
    const scales = new Float64Array(size / D);
    const out = this.result(size, ({ grad }) => this.passLayerNorm(rows, weight, grad, normal, scales));
    for (let n = 0; n < scales.length; n++) {
      let mean = 0, variance = 0;
      for (let i = n * D; i < (n + 1) * D; i++) mean += rows.data[i] / D;
      for (let i = n * D; i < (n + 1) * D; i++) variance += (rows.data[i] - mean) ** 2 / D;
      scales[n] = 1 / Math.sqrt(variance + NORM_EPSILON);
      for (let i = n * D; i < (n + 1) * D; i++) normal[i] = (rows.data[i] - mean) * scales[n];
    }
    for (let i = 0; i < size; i++) out.data[i] = normal[i] * weight.data[i % D];
    return out;
  }

  /** A change that only shifts or stretches the row is undone by the norm: those two parts are taken out. */
  passLayerNorm(rows, weight, grad, normal, scales) {
    const D = weight.data.length;
    for (let n = 0; n < scales.length; n++) {
      let shift = 0, stretch = 0;
      for (let i = 0; i < D; i++) {
        const g = grad[n * D + i] * weight.data[i];
        shift += g / D;
        stretch += (g * normal[n * D + i]) / D;
        weight.grad[i] += grad[n * D + i] * normal[n * D + i];
      }
      for (let i = 0; i < D; i++) {
        const g = grad[n * D + i] * weight.data[i];
        rows.grad[n * D + i] += (g - shift - normal[n * D + i] * stretch) * scales[n];
      }
    }
  }

  /** GELU: x times Phi(x), the chance that a standard normal number lies below x. Its slope is Phi(x) + x Phi'(x). */
  gelu(rows) {
    const below = rows.data.map((x) => 0.5 * (1 + erf(x * Math.SQRT1_2)));
    const out = this.result(rows.data.length, ({ grad }) => {
      for (let i = 0; i < grad.length; i++) {
        const x = rows.data[i], density = Math.exp((-x * x) / 2) / Math.sqrt(2 * Math.PI);
        rows.grad[i] += grad[i] * (below[i] + x * density);
      }
    });
    for (let i = 0; i < out.data.length; i++) out.data[i] = rows.data[i] * below[i];
    return out;
  }

  /** Every position of a text looks at all of it, head by head: query, key, value (B L, H, K) to the same shape. */
  attend(query, key, value, { L, H, K, scale }) {
    const D = H * K, B = query.data.length / (L * D), shares = [];
    const heads = []; // where the first number of each head of each text lies
    for (let b = 0; b < B; b++) for (let h = 0; h < H; h++) heads.push(b * L * D + h * K);
    const out = this.result(query.data.length, ({ grad }) => {
      heads.forEach((at, n) => this.passHead(at, shares[n], { query, key, value }, grad, { L, D, K, scale }));
    });
    for (const at of heads) shares.push(this.head(at, { query, key, value }, out.data, { L, D, K, scale }));
    return out;
  }

  /** One head of one text, whose numbers begin at `at`. Returns how much position i looks at position j, (L, L). */
  head(at, { query, key, value }, out, { L, D, K, scale }) {
    const share = new Float64Array(L * L);
    for (let i = 0; i < L; i++) {
      const scores = new Float64Array(L);
      for (let j = 0; j < L; j++) {
        for (let k = 0; k < K; k++) scores[j] += scale * query.data[at + i * D + k] * key.data[at + j * D + k];
      }
      share.set(softmax(scores), i * L);
      for (let j = 0; j < L; j++) {
        for (let k = 0; k < K; k++) out[at + i * D + k] += share[i * L + j] * value.data[at + j * D + k];
      }
    }
    return share;
  }

  /** Values get their share of the change. A score feels what its value is worth beyond the average of all values. */
  passHead(at, share, { query, key, value }, grad, { L, D, K, scale }) {
    for (let i = 0; i < L; i++) {
      const worth = new Float64Array(L);
      let average = 0;
      for (let j = 0; j < L; j++) {
        for (let k = 0; k < K; k++) {
          const g = grad[at + i * D + k];
          worth[j] += g * value.data[at + j * D + k];
          value.grad[at + j * D + k] += g * share[i * L + j];
        }
        average += share[i * L + j] * worth[j];
      }
      for (let j = 0; j < L; j++) {
        const g = share[i * L + j] * (worth[j] - average) * scale;
        for (let k = 0; k < K; k++) {
          query.grad[at + i * D + k] += g * key.data[at + j * D + k];
          key.grad[at + j * D + k] += g * query.data[at + i * D + k];
        }
      }
    }
  }

  /** The loss: how surprised the predictions (N, V) are by the targets (N), in nats, each times its weight.
   *
   * Its gradient is the weight times what was predicted minus what was there. MASK is never an answer.
   */
  crossEntropy(logits, targets, weights, maskId) {
    const V = logits.data.length / targets.length;
    let nats = 0;
    targets.forEach((target, n) => {
      if (!weights[n]) return;
      const probs = softmax(logits.data.slice(n * V, (n + 1) * V).fill(-Infinity, maskId, maskId + 1));
      nats -= weights[n] * Math.log(probs[target]);
      for (let v = 0; v < V; v++) logits.grad[n * V + v] += weights[n] * (probs[v] - (v === target ? 1 : 0));
    });
    return nats;
  }
}
