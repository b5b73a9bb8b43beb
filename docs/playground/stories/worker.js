"use strict";
/* The model at work, in a thread of its own: a step of writing may take a good part of a second.
 *
 * It is sent { model } once, then { seed } before each run, and { canvas, how } for each step, which it answers.
 */

let denoiser = null, rng = null;

self.onmessage = ({ data: { model, seed, canvas, how } }) => {
  if (model) {
    denoiser = new Denoiser(model.config, unpack(model.weights));
    if (model.config.block) denoiser = new CachedDenoiser(denoiser);
  }
  if (seed !== undefined) rng = new TorchGenerator(seed);
  if (model) self.postMessage({ isReady: true });
  if (!canvas) return;
  const start = performance.now();
  const write = denoiser.config.block ? revealBlocks : revealSome;
  self.postMessage({ ...write(denoiser, canvas, how, rng), ms: performance.now() - start });
};
