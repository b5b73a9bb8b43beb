"use strict";
/* The page at work: it starts the worker, draws what it reports, and gives the newest network to the writer. */

const STEPS = 2000; // of a training: below a minute on a slow core
const ROWS = 16; // of the table of what the network writes

class TrainingPage {
  constructor() {
    at("train").addEventListener("click", () => this.toggle());
    at("restart").addEventListener("click", () => this.restart());
    at("text").addEventListener("change", () => this.restart());
    at("texts").addEventListener("submit", (event) => event.preventDefault());
    window.addEventListener("resize", () => this.reports.length && this.draw());
    this.code = URL.createObjectURL(new Blob([WORKER_CODE], { type: "text/javascript" }));
    this.restart();
  }

  /** What is chosen: micro, or the visitor's own words. */
  get chosen() {
    return at("text").value === "micro" ? MICRO : languageOfWords(at("own").value);
  }

  say(text) {
    at("training-status").textContent = text;
  }

  /** A new network, which has learned nothing yet. */
  restart() {
    this.worker?.terminate();
    at("own-words").hidden = at("text").value === "micro";
    Object.assign(this, { reports: [], isPlaying: false, isNew: true });
    at("train").disabled = true;
    try {
      this.begin(this.chosen);
    } catch (error) {
      this.say(error.message);
    }
    this.renderButtons();
  }

  begin(language) {
    this.language = new ListedLanguage(language);
    this.worker = new Worker(this.code);
    this.worker.addEventListener("message", ({ data }) => this.receive(data));
    this.worker.addEventListener("error", (error) => this.say(`The training stopped: ${error.message}`));
    this.worker.postMessage({ language, seed: Number(at("training-seed").value) || 0, steps: STEPS });
    this.say("A new network, with random weights. Train starts it.");
  }

  /** Train, Pause or Go on: whatever the button says. */
  toggle() {
    this.isPlaying = !this.isPlaying;
    this.worker.postMessage({ play: this.isPlaying });
    this.say(this.isPlaying ? "It trains." : "Paused.");
    this.renderButtons();
  }

  /** One report of the worker. */
  receive(report) {
    this.reports.push(report);
    at("train").disabled = report.done === report.steps;
    if (report.done === report.steps) this.finish(report);
    if (report.written) this.drawWritten(report.written);
    this.giveToWriter(report);
    this.draw();
    this.renderButtons();
  }

  finish({ seconds, bound }) {
    this.isPlaying = false;
    const gap = (bound - this.entropy).toFixed(3);
    this.say(`Trained in ${Math.round(seconds)} seconds. The bound is ${gap} nats a token above the entropy.`);
  }

  /** Nats a token: below this no network can get. */
  get entropy() {
    return this.language.entropyNats / this.language.length;
  }

  giveToWriter({ config, weights }) {
    const denoiser = new Denoiser(config, weights), { language } = this;
    if (this.isNew) {
      const writer = new Writer(language, denoiser, language);
      if (window.playground) window.playground.open(writer);
      else window.playground = new Playground(writer);
    }
    this.isNew = false;
    window.playground.writer.denoiser = denoiser;
    window.playground.renderBelief();
  }

  // ---------------------------------------------------------------------------------------------- showing

  renderButtons() {
    const done = this.reports.at(-1)?.done ?? 0;
    at("train").textContent = this.isPlaying ? "Pause" : done === STEPS ? "Trained" : done ? "Go on" : "Train";
  }

  draw() {
    const { done, steps, seconds, bound, isExact, size } = this.reports.at(-1), { entropy } = this;
    drawCurve(at("curve"), this.reports, entropy);
    const parts = [`Step ${done} of ${steps}`, `${seconds.toFixed(0)} s`, `bound ${bound.toFixed(3)}`,
      `entropy ${entropy.toFixed(3)}`, `gap ${(bound - entropy).toFixed(3)} nats a token`];
    at("training-numbers").textContent = parts.join(" · ");
    at("curve-description").textContent = `After ${done} of ${steps} steps the bound has fallen from ` +
      `${this.reports[0].bound.toFixed(2)} to ${bound.toFixed(3)} nats a token; the entropy is ${entropy.toFixed(3)}.`;
    at("how-measured").textContent = `The network has ${size.toLocaleString("en")} weights. Its bound is measured on ` +
      (isExact ? "every text with every choice of hidden words, so it is exact." :
        "the same drawn questions every time, so it is an estimate.");
  }

  /** A canvas as a reader writes it, without its end and what follows, if nothing but padding does. */
  textOf(canvas) {
    const { eosId, padId, gap } = this.language, end = canvas.findIndex((id) => id === eosId || id === padId);
    const isClean = end > 0 && canvas[end] === eosId && canvas.slice(end + 1).every((id) => id === padId);
    return canvas.slice(0, isClean ? end : canvas.length).map((id) => drawn(id, this.language)).join(gap);
  }

  /** What the network writes many times, beside how often the language has it. */
  drawWritten(canvases) {
    const { language } = this, exact = new Map(), found = new Map();
    language.texts.forEach((text, n) => exact.set(String(text), language.probs[n]));
    for (const canvas of canvases) found.set(String(canvas), (found.get(String(canvas)) ?? 0) + 1 / canvases.length);
    const all = new Map([...exact.keys(), ...found.keys()].map((key) => [key, key.split(",").map(Number)]));
    const most = (key) => found.get(key) ?? 0;
    const keys = [...all.keys()].sort((a, b) => (exact.get(b) ?? 0) - (exact.get(a) ?? 0) || most(b) - most(a));
    at("written").tBodies[0].replaceChildren(...keys.slice(0, ROWS).map((key) => {
      const row = element("tr", ""), text = element("th", "word", this.textOf(all.get(key)));
      text.scope = "row";
      row.append(text, shareCell("share", most(key)), shareCell("share exact", exact.get(key) ?? 0));
      return row;
    }));
    const right = canvases.filter((canvas) => exact.has(String(canvas))).length;
    const others = [...found.keys()].filter((key) => !exact.has(key));
    const wrong = others.slice(0, 5).map((key) => `“${this.textOf(all.get(key))}”`);
    at("written-note").textContent = `Of ${canvases.length} texts, ${right} belong to the language.` +
      (wrong.length ? ` Among the others: ${wrong.join(", ")}.` : "");
  }
}

/** Run the page, or say in it why that cannot be. */
function openTraining() {
  if (typeof WORKER_CODE !== "undefined") return new TrainingPage();
  at("training-status").className = "error";
  at("training-status").textContent = "code.js is missing, this folder holds only the source of the page. Run " +
    "`python scripts/make_playground.py`, then open site/playground/training/index.html.";
  for (const id of ["train", "restart", "go", "step", "hide-all"]) at(id).disabled = true;
}

window.trainingPage = openTraining();
