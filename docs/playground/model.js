"use strict";
/* The forward pass of network/transformer.py and network/attention.py in plain JavaScript.
 *
 * Why no ONNX: the models have a few million numbers at most, so a loop over arrays is quick enough. onnxruntime-web
 * would add about ten megabytes of WebAssembly, which a browser refuses to load from disk, and the mathematics would be
 * out of sight. Arrays are flat Float32Arrays, row after row; the shapes stand in the comments, with the course's
 * letters: L positions, V words, D width, H heads, K = D / H. tests/site/test_playground.py holds them to PyTorch.
 */

const NORM_EPSILON = 1e-5; // as torch.nn.LayerNorm

/** What scripts/make_playground.py packed (base64, one tensor after the other; 16 or 32 bits a number), by name.
 *
 * Numbers are little-endian there, as in every browser's machine.
 */
function unpack(packed) {
  const text = atob(packed.base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  const numbers = packed.bits === 16 ? halves(new Uint16Array(bytes.buffer)) : new Float32Array(bytes.buffer);
  return new Map(packed.tensors.map(({ name, shape, offset }) =>
    [name, numbers.subarray(offset, offset + shape.reduce((a, b) => a * b, 1))]));
}

/** The numbers that 16 bits each stand for (IEEE 754): a sign, 5 bits of exponent, 10 of fraction. */
function halves(words) {
  const numbers = new Float32Array(words.length);
  for (let i = 0; i < words.length; i++) {
    const sign = words[i] >> 15 ? -1 : 1, exponent = (words[i] >> 10) & 31, fraction = (words[i] & 1023) / 1024;
    numbers[i] = sign * (exponent ? (1 + fraction) * 2 ** (exponent - 15) : fraction * 2 ** -14);
  }
  return numbers;
}

/** torch.nn.Linear: rows (L, I), weight (O, I), bias (O) or none, to (L, O).
 *
 * Four rows and two outputs at a time, so that each number is read once for several products; at the ends the last row
 * or output may be done again.
 */
function linear(rows, weight, bias, I) {
  const L = rows.length / I, O = weight.length / I, out = new Float32Array(L * O);
  for (let o = 0; o < O; o += 2) {
    const p = Math.min(o + 1, O - 1);
    for (let l = 0; l < L; l += 4) {
      const a = l, b = Math.min(l + 1, L - 1), c = Math.min(l + 2, L - 1), d = Math.min(l + 3, L - 1);
      let oA = 0, oB = 0, oC = 0, oD = 0, pA = 0, pB = 0, pC = 0, pD = 0;
      for (let i = 0; i < I; i++) {
        const w = weight[o * I + i], v = weight[p * I + i];
        const xA = rows[a * I + i], xB = rows[b * I + i], xC = rows[c * I + i], xD = rows[d * I + i];
        oA += w * xA;
        oB += w * xB;
        oC += w * xC;
        oD += w * xD;
        pA += v * xA;
        pB += v * xB;
        pC += v * xC;
        pD += v * xD;
      }
      out[a * O + o] = oA;
      out[b * O + o] = oB;
      out[c * O + o] = oC;
      out[d * O + o] = oD;
      out[a * O + p] = pA;
      out[b * O + p] = pB;
      out[c * O + p] = pC;
      out[d * O + p] = pD;
    }
  }
  if (bias) for (let i = 0; i < out.length; i++) out[i] += bias[i % O];
  return out;
}

/** torch.nn.LayerNorm without bias: every row of weight.length numbers to mean 0 and variance 1, then scaled. */
function layerNorm(rows, weight) {
  const width = weight.length, out = new Float32Array(rows.length);
  for (let start = 0; start < rows.length; start += width) {
    let mean = 0, variance = 0;
    for (let i = 0; i < width; i++) mean += rows[start + i] / width;
    for (let i = 0; i < width; i++) variance += (rows[start + i] - mean) ** 2 / width;
    const scale = 1 / Math.sqrt(variance + NORM_EPSILON);
    for (let i = 0; i < width; i++) out[start + i] = (rows[start + i] - mean) * scale * weight[i];
  }
  return out;
}

/** The error function to 1.5e-7 (Abramowitz and Stegun, 7.1.26); JavaScript has none of its own. */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x));
  const series = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))));
  return Math.sign(x) * (1 - series * Math.exp(-x * x));
}

/** torch.nn.GELU: x times the chance that a standard normal number lies below x. */
function gelu(values) {
  return values.map((x) => 0.5 * x * (1 + erf(x * Math.SQRT1_2)));
}

/** The sum of two arrays of one shape. */
function add(a, b) {
  return a.map((x, i) => x + b[i]);
}

/** Cosines and sines of positions 0..L-1, K / 2 wavelengths, each (L, K / 2); transformer.sinusoids. */
function waves(L, K) {
  const half = K / 2, cos = new Float32Array(L * half), sin = new Float32Array(L * half);
  for (let l = 0; l < L; l++) {
    for (let j = 0; j < half; j++) {
      const angle = l * Math.exp((-Math.log(10000) * j) / half);
      cos[l * half + j] = Math.cos(angle);
      sin[l * half + j] = Math.sin(angle);
    }
  }
  return { cos, sin };
}

/** Turn each pair of channels of (L, H, K) by an angle that grows with the position; attention.rotate.
 *
 * first: the position of the first row.
 */
function rotate(rows, { cos, sin }, H, K, first) {
  const half = K / 2, out = new Float32Array(rows.length);
  for (let row = 0; row < rows.length / K; row++) {
    const l = first + Math.floor(row / H);
    for (let j = 0; j < half; j++) {
      const a = rows[row * K + j], b = rows[row * K + half + j], c = cos[l * half + j], s = sin[l * half + j];
      out[row * K + j] = a * c - b * s;
      out[row * K + half + j] = a * s + b * c;
    }
  }
  return out;
}

/** The probabilities of some numbers (a Float64Array): exp, over its sum; -Infinity becomes 0. */
function softmax(numbers) {
  const highest = numbers.reduce((a, b) => Math.max(a, b), -Infinity);
  const weights = numbers.map((x) => Math.exp(x - highest));
  const total = weights.reduce((a, b) => a + b, 0);
  return weights.map((w) => w / total);
}

/** Every position looks at every position, head by head: N queries and L keys, values (H, K) to (N, H, K).
 *
 * block: tokens of a block, where a position looks at its own block and those before it; 0: none.
 * first: the position of the first query.
 */
function attend(query, key, value, { H, K, scale, block, first }) {
  const D = H * K, L = key.length / D, out = new Float32Array(query.length), scores = new Float64Array(L);
  for (let h = 0; h < H; h++) {
    for (let i = 0; i < query.length / D; i++) {
      const end = block ? Math.min(L, (Math.floor((first + i) / block) + 1) * block) : L; // it looks at 0..end-1
      for (let j = 0; j < end; j++) {
        let dot = 0;
        for (let k = h * K; k < (h + 1) * K; k++) dot += query[i * D + k] * key[j * D + k];
        scores[j] = dot * scale;
      }
      const share = softmax(scores.subarray(0, end));
      for (let k = h * K; k < (h + 1) * K; k++) {
        let mixed = 0;
        for (let j = 0; j < end; j++) mixed += share[j] * value[j * D + k];
        out[i * D + k] = mixed;
      }
    }
  }
  return out;
}

/** Some rows of (L, D), by number. */
function picked(rows, where, D) {
  const out = new Float32Array(where.length * D);
  where.forEach((l, n) => out.set(rows.subarray(l * D, (l + 1) * D), n * D));
  return out;
}

/** transformer.Denoiser: token ids in, one row of V logits for each position out. */
class Denoiser {
  /** config: as transformer.DenoiserConfig, and `sharpest` of attention.py; weights: Map of Float32Arrays by name. */
  constructor(config, weights) {
    this.config = config;
    this.weights = weights;
  }

  weight(name) {
    const found = this.weights.get(name);
    if (!found) throw new Error(`Denoiser: the weights lack ${name}. Run python scripts/make_playground.py again.`);
    return found;
  }

  /** ids: L token ids, L at most max_length; where: the N positions at which logits are wanted, or all.
   *
   * cache: a KeyValueCache that holds what was read before; only what comes behind is read, and `where` lies there.
   * Returns (N, V) logits; the column of MASK is -Infinity.
   */
  forward(ids, where = null, cache = null) {
    const { hidden_size: D, num_heads: H, num_layers, rotary, max_length, vocab_size: V, tied } = this.config;
    const tokens = this.weight("token_embedding.weight"), positions = this.weight("position_embedding.weight");
    if (ids.length > max_length || ids.some((id) => !(id >= 0 && id < V))) {
      throw new Error(`Denoiser: expected at most ${max_length} ids in 0..${V - 1}, got ${ids.length}: ${ids}.`);
    }
    const first = cache ? cache.length : 0;
    let x = new Float32Array((ids.length - first) * D);
    for (let i = 0, at = first * D; i < x.length; i++, at++) {
      x[i] = tokens[ids[Math.floor(at / D)] * D + (at % D)] + positions[at];
    }
    const angles = rotary ? waves(ids.length, D / H) : null;
    for (let n = 0; n < num_layers; n++) x = this.block(x, `blocks.${n}.`, angles, cache);
    if (where) x = picked(x, where.map((l) => l - first), D);
    const head = tied ? tokens : this.weight("head.weight");
    const bias = this.weight("head_bias").slice();
    bias[this.config.mask_token_id] = -Infinity; // MASK is never an answer
    return linear(layerNorm(x, this.weight("norm.weight")), head, bias, D); // (N, V)
  }

  /** attention.Block: attention, then a two-layer network, each on normalised input and added back: (L, D). */
  block(x, name, angles, cache) {
    const { hidden_size: D, intermediate_size } = this.config;
    const seen = layerNorm(x, this.weight(name + "norm_attention.weight"));
    x = add(x, this.attention(seen, name + "attention.", angles, cache));
    const inner = layerNorm(x, this.weight(name + "norm_network.weight"));
    const wide = gelu(linear(inner, this.weight(name + "network.0.weight"), this.weight(name + "network.0.bias"), D));
    const last = this.weight(name + "network.2.weight");
    return add(x, linear(wide, last, this.weight(name + "network.2.bias"), intermediate_size));
  }

  /** attention.Attention: queries and keys are normalised head by head. (L, D) to (L, D). */
  attention(x, name, angles, cache) {
    const { hidden_size: D, num_heads: H, sharpest, block } = this.config, K = D / H, first = cache ? cache.length : 0;
    const project = (part) => linear(x, this.weight(`${name}${part}.weight`), null, D); // (L, D), read as (L, H, K)
    let query = layerNorm(project("query"), this.weight(name + "norm_query.weight"));
    let key = layerNorm(project("key"), this.weight(name + "norm_key.weight"));
    if (angles) [query, key] = [rotate(query, angles, H, K, first), rotate(key, angles, H, K, first)];
    let value = project("value");
    if (cache) [key, value] = cache.extend(name, key, value);
    const mixed = attend(query, key, value, { H, K, scale: sharpest / K, block, first });
    return linear(mixed, this.weight(name + "out.weight"), null, D);
  }
}

/** Keys and values of the positions read so far, by layer; network/cache.py. */
class KeyValueCache {
  /** width: numbers of a key. */
  constructor(width) {
    this.width = width;
    this.length = 0; // positions that stand
    this.layers = new Map();
  }

  /** The keys and values of a layer up to this.length, and new ones (N, D) behind them. */
  extend(name, ...added) {
    const joined = added.map((rows, n) => {
      const before = this.layers.get(name)?.[n].subarray(0, this.length * this.width) ?? new Float32Array(0);
      const all = new Float32Array(before.length + rows.length);
      all.set(before);
      all.set(rows, before.length);
      return all;
    });
    this.layers.set(name, joined);
    return joined;
  }
}

/** A network with blocks that reads nothing twice which stands as it stood at the last call; network/cache.py. */
class CachedDenoiser {
  constructor(denoiser) {
    this.denoiser = denoiser;
    this.config = denoiser.config;
    this.cache = new KeyValueCache(denoiser.config.hidden_size);
    this.read = [];
  }

  /** As Denoiser.forward, to the last digit. A block is read as a whole. */
  forward(ids, where) {
    const { block } = this.config;
    let same = 0;
    while (same < this.read.length && this.read[same] === ids[same]) same++;
    this.cache.length = Math.floor(Math.min(same, ...where) / block) * block;
    const logits = this.denoiser.forward(ids, where, this.cache);
    this.read = [...ids];
    return logits;
  }
}
