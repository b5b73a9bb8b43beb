"use strict";
/* A language that is a list: every text there is, with its probability. So everything about it can be counted. */

class ListedLanguage {
  /** texts: arrays of ids, all of one length; probs: of each text; words: what the ids stand for; gap: between two. */
  constructor({ texts, probs, words, mask_id: maskId, eos_id: eosId, pad_id: padId, gap = " " }) {
    Object.assign(this, { texts, probs, words, maskId, eosId, padId, gap, length: texts[0].length });
    this.entropyNats = -probs.reduce((sum, p) => sum + p * Math.log(p), 0); // of a text
  }

  /** A text at random. */
  draw(rng) {
    return this.texts[inverseCdf(this.probs, rng.uniform())];
  }

  /** The probability of each text, but 0 for those that differ from what is visible. */
  fitting(canvas) {
    return this.texts.map((text, n) =>
      (canvas.every((id, i) => id === this.maskId || id === text[i]) ? this.probs[n] : 0));
  }

  /** log p of the visible words, in nats; -Infinity if no text has them. */
  logProb(canvas) {
    return Math.log(this.fitting(canvas).reduce((a, b) => a + b, 0));
  }

  /** The exact probability of every word at one position, given the others; null if no text fits. */
  posterior(canvas, position) {
    const weights = this.fitting(canvas.with(position, this.maskId)), total = weights.reduce((a, b) => a + b, 0);
    const probs = new Float64Array(this.words.length);
    weights.forEach((weight, n) => { probs[this.texts[n][position]] += weight / total; });
    return total ? probs : null;
  }
}

const MOST_WORDS = 100, MOST_LETTERS = 10;

/** The language of a list of words: its letters are the tokens, and every word of the list is equally likely.
 *
 * Raises: Error if there are too few or too many words, or too long ones.
 */
function languageOfWords(list) {
  const found = [...new Set(list.toLowerCase().match(/\p{L}+/gu) ?? [])];
  const longest = Math.max(...found.map((word) => word.length));
  if (found.length < 2 || found.length > MOST_WORDS || longest > MOST_LETTERS) {
    throw new Error(`Expected 2 to ${MOST_WORDS} different words of at most ${MOST_LETTERS} letters, ` +
      `got ${found.length}${found.length ? ` of up to ${longest}` : ""}.`);
  }
  const words = ["[PAD]", "[MASK]", "[EOS]", ...new Set(found.join(""))];
  const texts = found.map((word) => [...word].map((letter) => words.indexOf(letter)))
    .map((ids) => [...ids, 2, ...new Array(longest - ids.length).fill(0)]);
  const probs = texts.map(() => 1 / texts.length);
  return { texts, probs, words, mask_id: 1, eos_id: 2, pad_id: 0, gap: "" };
}
