"use strict";
/* The language itself, exactly: diffkit/languages/story_language.py for canvases whose tokens are either seen or hidden.
 *
 * A story is a template whose positions are literal words or slots; given the template the slots are independent. So
 * the chance of what is visible, and of each word behind a mask, is a sum over templates of products over slots.
 */

class StoryLanguage {
  /** grammar: slots and templates of stories.py; words: the vocabulary, so that ids can be looked up. */
  constructor(grammar, words, length, { maskId, eosId, padId }) {
    Object.assign(this, { length, maskId, entropyNats: grammar.entropy_nats });
    this.ids = new Map(words.map((word, id) => [word, id]));
    const total = grammar.templates.reduce((sum, template) => sum + template.prob, 0);
    this.templates = grammar.templates.map(({ text, prob }) => ({
      prob: prob / total, ...this.places(text.split(" "), grammar.slots, eosId, padId),
    }));
  }

  /** A template's literals, { place, id }, and its slots: the values' chances, and where each value shows which id. */
  places(parts, slots, eosId, padId) {
    const literals = [], shown = new Map();
    parts.forEach((part, place) => {
      const [, slot, form] = part.match(/^\{(\w+)(?:\.(\w+))?\}$/) ?? [];
      if (!slot) return literals.push({ place, id: this.ids.get(part) });
      if (!shown.has(slot)) shown.set(slot, { probs: slots[slot].probs, cells: [] });
      shown.get(slot).cells.push({ place, ids: slots[slot].values.map((value) => this.ids.get(value[form ?? ""])) });
    });
    for (let place = parts.length; place < this.length; place++) {
      literals.push({ place, id: place === parts.length ? eosId : padId });
    }
    return { literals, slots: [...shown.values()] };
  }

  /** Weights of one template given the canvas: of each value of each slot, and of all together (0: it does not fit). */
  weigh(template, canvas) {
    const fits = (place, id) => canvas[place] === this.maskId || canvas[place] === id;
    if (!template.literals.every(({ place, id }) => fits(place, id))) return { weight: 0, values: [] };
    const values = template.slots.map(({ probs, cells }) =>
      probs.map((p, u) => (cells.every(({ place, ids }) => fits(place, ids[u])) ? p : 0)));
    const sums = values.map((weights) => weights.reduce((a, b) => a + b, 0));
    return { weight: sums.reduce((a, b) => a * b, template.prob), values, sums };
  }

  /** log p of the visible tokens in nats, hidden ones summed out; -Infinity if no story fits them. */
  logProb(canvas) {
    return Math.log(this.templates.reduce((sum, template) => sum + this.weigh(template, canvas).weight, 0));
  }

  /** The exact chance of every word at one place, given all that is visible elsewhere; null if no story fits that. */
  posterior(canvas, place) {
    const given = canvas.map((id, i) => (i === place ? this.maskId : id));
    const probs = new Float64Array(this.ids.size);
    for (const template of this.templates) {
      const { weight, values, sums } = this.weigh(template, given);
      if (!weight) continue;
      const literal = template.literals.find((one) => one.place === place);
      if (literal) probs[literal.id] += weight;
      template.slots.forEach(({ cells }, j) => {
        const cell = cells.find((one) => one.place === place);
        if (cell) values[j].forEach((p, u) => (probs[cell.ids[u]] += (weight * p) / sums[j]));
      });
    }
    const total = probs.reduce((a, b) => a + b, 0);
    return total ? probs.map((p) => p / total) : null;
  }
}
