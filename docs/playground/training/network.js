"use strict";
/* The network that learns: ../model.js's transformer, which is network/transformer.py's, written on a Tape.
 *
 * Why a transformer, and so small? A tie ("the third word is the first one's partner") needs a position that looks at
 * others, which is attention, and a rule for what it finds there, which is the two-layer network. One layer of them
 * learns each tie by itself; the second one is needed where a position must first find out which kind of text it is in.
 */

const SHAPE = { hidden_size: 16, num_layers: 2, num_heads: 2, intermediate_size: 32, rotary: false, tied: false };
const SHARPEST = 4; // how sharply attention chooses at the start, see network/attention.py; 12 there, with wider heads

class Network {
  /** config: as that of model.js; weights: Map from a name to Float64Array, as the names of a state_dict. */
  constructor(config, weights) {
    this.config = config;
    this.weights = new Map([...weights].map(([name, data]) => [name, new Tensor(data)]));
  }

  /** Small random weights; norms at 1, biases at 0. */
  static random(config, rng) {
    const { vocab_size: V, hidden_size: D, num_layers, num_heads: H, intermediate_size: I, max_length } = config;
    const weights = new Map(), ones = (size) => new Float64Array(size).fill(1);
    const random = () => START_STD * normal(rng);
    const matrix = (name, size) => weights.set(name, Float64Array.from({ length: size }, random));
    matrix("token_embedding.weight", V * D);
    matrix("position_embedding.weight", max_length * D);
    for (let n = 0; n < num_layers; n++) {
      const name = `blocks.${n}.`;
      for (const norm of ["norm_attention", "norm_network"]) weights.set(`${name}${norm}.weight`, ones(D));
      for (const part of ["query", "key", "value", "out"]) matrix(`${name}attention.${part}.weight`, D * D);
      for (const norm of ["norm_query", "norm_key"]) weights.set(`${name}attention.${norm}.weight`, ones(D / H));
      matrix(`${name}network.0.weight`, I * D);
      weights.set(`${name}network.0.bias`, new Float64Array(I));
      matrix(`${name}network.2.weight`, D * I);
      weights.set(`${name}network.2.bias`, new Float64Array(D));
    }
    weights.set("norm.weight", ones(D));
    matrix("head.weight", V * D);
    weights.set("head_bias", new Float64Array(V));
    return new Network(config, weights);
  }

  /** How many numbers it learns. */
  get size() {
    return [...this.weights.values()].reduce((sum, { data }) => sum + data.length, 0);
  }

  /** Token ids of B texts of L positions, one after the other, to predictions, (B L, V) logits. */
  forward(tape, ids, L) {
    const { hidden_size: D, num_layers } = this.config, w = (name) => this.weights.get(name);
    const positions = ids.map((_, n) => n % L);
    let x = tape.add(
      tape.lookUp(ids, w("token_embedding.weight"), D), tape.lookUp(positions, w("position_embedding.weight"), D));
    for (let n = 0; n < num_layers; n++) x = this.block(tape, x, `blocks.${n}.`, L);
    return tape.linear(tape.layerNorm(x, w("norm.weight")), w("head.weight"), w("head_bias"), D);
  }

  /** Attention, then a two-layer network, each on normalised input and added back: (N, D). */
  block(tape, x, name, L) {
    const { hidden_size: D, intermediate_size: I } = this.config, w = (part) => this.weights.get(name + part);
    x = tape.add(x, this.attention(tape, tape.layerNorm(x, w("norm_attention.weight")), `${name}attention.`, L));
    const inner = tape.layerNorm(x, w("norm_network.weight"));
    const wide = tape.gelu(tape.linear(inner, w("network.0.weight"), w("network.0.bias"), D));
    return tape.add(x, tape.linear(wide, w("network.2.weight"), w("network.2.bias"), I));
  }

  /** Queries and keys are normalised head by head. (N, D) to (N, D). */
  attention(tape, x, name, L) {
    const { hidden_size: D, num_heads: H, sharpest } = this.config, K = D / H;
    const w = (part) => this.weights.get(name + part);
    const project = (part) => tape.linear(x, w(`${part}.weight`), null, D);
    const query = tape.layerNorm(project("query"), w("norm_query.weight"));
    const key = tape.layerNorm(project("key"), w("norm_key.weight"));
    const mixed = tape.attend(query, key, project("value"), { L, H, K, scale: sharpest / K });
    return tape.linear(mixed, w("out.weight"), null, D);
  }
}

/** A number from the standard normal distribution (Box and Muller 1958). */
function normal(rng) {
  return Math.sqrt(-2 * Math.log(1 - rng.uniform())) * Math.cos(2 * Math.PI * rng.uniform());
}
