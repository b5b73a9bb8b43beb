"use strict";
/* The language itself, exactly: languages/story_language.py for canvases whose tokens are either seen or hidden.
 *
 * A story is a template whose positions are literal words or slots; given the template the slots are independent. So
 * the chance of what is visible, and of each word behind a mask, is a sum over templates of products over slots.
 */

class StoryLanguage {
  /** grammar: slots and templates of the grammar; words: the vocabulary, so that ids can be looked up. */
  constructor(grammar, words, length, { maskId, eosId, padId }) {
    Object.assign(this, { length, maskId, entropyNats: grammar.entropy_nats });
    this.ids = new Map(words.map((word, id) => [word, id]));
    const total = grammar.templates.reduce((sum, template) => sum + template.prob, 0);
    this.templates = grammar.templates.map(({ text, prob }) => ({
      prob: prob / total, ...this.positions(text.split(" "), grammar.slots, eosId, padId),
    }));
  }

  /** A template's literals, { position, id }, and its slots: each value's probability, position and id. */
  positions(parts, slots, eosId, padId) {
    const literals = [], shown = new Map();
    parts.forEach((part, position) => {
      const [, slot, form] = part.match(/^\{(\w+)(?:\.(\w+))?\}$/) ?? [];
      if (!slot) return literals.push({ position, id: this.ids.get(part) });
      if (!shown.has(slot)) shown.set(slot, { probs: slots[slot].probs, cells: [] });
      shown.get(slot).cells.push({ position, ids: slots[slot].values.map((value) => this.ids.get(value[form ?? ""])) });
    });
    for (let position = parts.length; position < this.length; position++) {
      literals.push({ position, id: position === parts.length ? eosId : padId });
    }
    return { literals, slots: [...shown.values()] };
  }

  /** Weights of one template given the canvas: of each value of each slot, and of all together (0: it does not fit). */
  weigh(template, canvas) {
    const fits = (position, id) => canvas[position] === this.maskId || canvas[position] === id;
    if (!template.literals.every(({ position, id }) => fits(position, id))) return { weight: 0, values: [] };
    const values = template.slots.map(({ probs, cells }) =>
      probs.map((p, u) => (cells.every(({ position, ids }) => fits(position, ids[u])) ? p : 0)));
    const sums = values.map((weights) => weights.reduce((a, b) => a + b, 0));
    return { weight: sums.reduce((a, b) => a * b, template.prob), values, sums };
  }

  /** log p of the visible tokens in nats, hidden ones summed out; -Infinity if no story fits them. */
  logProb(canvas) {
    return Math.log(this.templates.reduce((sum, template) => sum + this.weigh(template, canvas).weight, 0));
  }

  /** The exact probability of every word at one position, given all that is visible elsewhere; null if none fits. */
  posterior(canvas, position) {
    const given = canvas.map((id, i) => (i === position ? this.maskId : id));
    const probs = new Float64Array(this.ids.size);
    for (const template of this.templates) {
      const { weight, values, sums } = this.weigh(template, given);
      if (!weight) continue;
      const literal = template.literals.find((one) => one.position === position);
      if (literal) probs[literal.id] += weight;
      template.slots.forEach(({ cells }, j) => {
        const cell = cells.find((one) => one.position === position);
        if (cell) values[j].forEach((p, u) => (probs[cell.ids[u]] += (weight * p) / sums[j]));
      });
    }
    const total = probs.reduce((a, b) => a + b, 0);
    return total ? probs.map((p) => p / total) : null;
  }
}
