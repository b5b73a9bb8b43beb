"use strict";
/* The training at work, in a thread of its own, so that the page stays awake.
 *
 * It is sent { language, seed, steps }, which makes a new network, or { play }, which sets it to work or lets it rest.
 * It answers with a report after each hundredth of the training.
 */

const REPORTS = 100, SAMPLES = 200;
let training = null, next = null, seconds = 0; // next: the timer of what is done next

self.onmessage = ({ data }) => {
  if (data.language) {
    training = new Training(new ListedLanguage(data.language), data.seed, data.steps);
    report(null);
  }
  clearTimeout(next);
  if (data.play) work();
};

/** A hundredth of the training, and then the next; between them messages come in. */
function work() {
  const start = performance.now(), few = Math.ceil(training.steps / REPORTS);
  let nats = 0;
  for (let i = 0; i < few; i++) nats += training.step() / few;
  seconds += (performance.now() - start) / 1000;
  report(nats);
  if (training.done < training.steps) next = setTimeout(work);
}

/** loss: the mean of the last steps, nats a token; bound: of the network as it is now; what it writes, now and then. */
function report(loss) {
  const { done, steps, network, isExact } = training, isDue = done % (steps / 10) === 0;
  const weights = new Map([...network.weights].map(([name, { data }]) => [name, data.slice()]));
  self.postMessage({
    done, steps, seconds, loss, bound: training.examine(), isExact, size: network.size, config: network.config, weights,
    written: isDue ? writeMany(new Denoiser(network.config, weights), training.language) : null,
  });
}

/** Texts from blank canvases, one word a step in random order: what sample.js does, many times. */
function writeMany(denoiser, { length, maskId }) {
  const rng = new TorchGenerator(0), steps = length;
  return Array.from({ length: SAMPLES }, () => {
    let canvas = new Array(length).fill(maskId);
    for (let step = 0; step < steps; step++) {
      const how = { maskId, temperature: 1, order: "random", step, steps };
      canvas = reveal(denoiser.forward(canvas), canvas, how, rng).canvas;
    }
    return canvas;
  });
}
