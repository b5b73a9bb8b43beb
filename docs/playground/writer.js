"use strict";
/* A canvas, what the reader has locked in it, and one run of the sampler over it. Nothing here knows of the page. */

class Writer {
  /** denoiser: what predicts, see model.js; language: exact, or undefined where it is not known. */
  constructor({ words, length, maskId, eosId, padId, gap = " " }, denoiser, language) {
    Object.assign(this, { words, length, maskId, eosId, padId, gap, denoiser, language }); // gap: between two words
    this.canvas = new Array(length).fill(maskId); // token ids
    this.locked = new Array(length).fill(false);
    this.fresh = new Array(length).fill(false); // revealed just now
    this.run = null; // { step, steps }, null when nothing is being written
    this.calls = { count: 0, ms: 0 }; // of the network, in this run or the one before
    this.leftAt = null; // the step of this run after which no story of the language fitted any more, 0: before it began
  }

  get hidden() {
    return this.canvas.filter((id) => id === this.maskId).length;
  }

  /** Begin to fill what is hidden, in at most as many steps as there are hidden positions. */
  begin(steps, seed) {
    this.rng = new TorchGenerator(seed);
    this.run = { step: 0, steps: Math.min(steps, this.hidden) };
    this.calls = { count: 0, ms: 0 };
    this.leftAt = this.fits() ? null : 0;
  }

  /** The network's logits for the canvas, counted and timed. */
  ask() {
    const start = performance.now(), logits = this.denoiser.forward(this.canvas);
    this.calls = { count: this.calls.count + 1, ms: this.calls.ms + performance.now() - start };
    return logits;
  }

  /** One step of the run; the last one reveals all that is left. */
  advance(temperature, order) {
    const how = { maskId: this.maskId, temperature, order, ...this.run };
    const { canvas, revealed } = reveal(this.ask(), this.canvas, how, this.rng);
    this.run.step += 1;
    this.change(canvas, revealed);
  }

  /** Draw the word of one position now, whatever the order. */
  fill(position, temperature) {
    const row = predictions(this.ask(), this.canvas, this.maskId, temperature)[position];
    const id = inverseCdf(row, this.rng.uniform());
    this.change(this.canvas.with(position, id), this.fresh.map((_, i) => i === position));
  }

  hide(position) {
    this.change(this.canvas.with(position, this.maskId), this.fresh.with(position, false));
  }

  /** A blank canvas again, but for what is locked. */
  hideAll() {
    this.run = null;
    this.change(this.canvas.map((id, i) => (this.locked[i] ? id : this.maskId)), this.fresh.map(() => false));
  }

  toggleLock(position) {
    this.locked[position] = !this.locked[position];
    this.fresh[position] = false;
  }

  change(canvas, fresh) {
    Object.assign(this, { canvas, fresh });
    this.leftAt = this.fits() ? null : this.leftAt ?? this.run?.step ?? 0;
    if (!this.hidden) this.run = null;
  }

  /** Is what is visible part of some story? Always, where the language is not known. */
  fits() {
    return !this.language || this.language.logProb(this.canvas) > -Infinity;
  }

  /** What could stand at a position, were it hidden, as { model, exact }: probabilities of each word of the vocabulary.
   *
   * exact is null where no story fits the other words, and undefined where the language is not known.
   */
  predictionsAt(position, temperature) {
    const canvas = this.canvas.with(position, this.maskId);
    const model = predictions(this.denoiser.forward(canvas), canvas, this.maskId, temperature)[position];
    return { model, exact: this.language?.posterior(canvas, position) };
  }
}
