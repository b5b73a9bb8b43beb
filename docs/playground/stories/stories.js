"use strict";
/* The page of real stories: it loads a model when it is asked to, and shows what that model's worker writes. */

class StoriesPage {
  constructor() {
    Object.assign(this, { run: null, isPlaying: false, isBusy: false, seedUsed: false, times: [] });
    this.writers = MODELS.map((about) => ({ about, button: element("button", "") }));
    for (const writer of this.writers) writer.button.addEventListener("click", () => this.choose(writer));
    at("models").append(...this.writers.map(({ button }) => button));
    const sizes = MODELS.map(({ name, parameters }) => `${name}, ${parameters.toLocaleString("en")} parameters`);
    at("about").textContent = `The models: ${sizes.join("; ")}. Their cards in the course say on which text they ` +
      "were trained and how well they do.";
    at("go").addEventListener("click", () => this.toggle());
    at("step").addEventListener("click", () => this.step());
    at("hide-all").addEventListener("click", () => this.hideAll());
    at("settings").addEventListener("input", () => this.renderControls());
    at("settings").addEventListener("submit", (event) => event.preventDefault());
    at("seed").addEventListener("input", () => { this.seedUsed = false; });
    at("canvas").addEventListener("keydown", (event) => this.press(event));
    this.renderModels();
    this.renderControls();
  }

  say(text) {
    at("status").textContent = text;
  }

  get settings() {
    const number = (id) => Number(at(id).value);
    return { steps: number("steps"), temperature: number("temperature"), topP: number("top-p"),
      order: at("order").value, seed: Math.max(0, Math.floor(number("seed"))) || 0 };
  }

  get model() {
    return this.writer.model;
  }

  get hidden() {
    return this.canvas.filter((id) => id === this.model.mask_id).length;
  }

  // ---------------------------------------------------------------------------------------------- models

  choose(writer) {
    if (!writer.model) this.load(writer);
    else if (writer !== this.writer) this.use(writer);
  }

  /** The weights are a script, as a page opened from disk may load those, but not fetch files. */
  load(writer) {
    const script = document.createElement("script");
    script.src = writer.about.script;
    script.addEventListener("load", () => this.begin(writer, window.STORIES));
    const missing = `${script.getAttribute("src")} is missing: run python scripts/make_playground.py.`;
    script.addEventListener("error", () => this.fail(missing));
    document.body.append(script);
    this.loading = writer;
    this.say("Loading the model.");
    this.renderModels();
  }

  fail(text) {
    Object.assign(this, { loading: null, isBusy: false, isPlaying: false, run: null });
    this.say(text);
    this.renderModels();
    this.renderControls();
  }

  begin(writer, model) {
    const worker = new Worker(URL.createObjectURL(new Blob([WORKER_CODE], { type: "text/javascript" })));
    const isReady = () => this.ready(Object.assign(writer, { worker, model: { ...model, weights: null } }));
    worker.addEventListener("message", ({ data }) => (data.isReady ? isReady() : this.receive(data)));
    worker.addEventListener("error", (error) => this.fail(`The model stopped: ${error.message}`));
    worker.postMessage({ model: { config: model.config, weights: model.weights } });
  }

  ready(writer) {
    this.loading = window.STORIES = null;
    this.use(writer);
    at("go").focus();
  }

  /** Go on with this model and its own settings. What is written stays, if it writes in the same pieces of words. */
  use(writer) {
    const { about, model } = writer, { pieces, length } = this.writer?.model ?? { pieces: [] };
    const keeps = length === model.length && pieces.join() === model.pieces.join();
    Object.assign(this, { writer, run: null, isPlaying: false, times: [] });
    at("order").value = about.block ? "blocks" : about.how.order;
    if (!at("order").value) at("order").value = "random"; // an order that the page does not offer
    at("order").disabled = Boolean(about.block);
    at("temperature").value = about.how.temperature;
    at("top-p").value = about.how.top_p;
    if (!keeps) this.newCanvas();
    const anew = `written anew${about.block ? " from what stands before it" : ""}`;
    const next = this.hidden ? "Refill writes what is hidden." : `Click a word to hide it, and have it ${anew}.`;
    this.say(`Ready. ${this.hidden === model.length ? "Start writes a story." : next}`);
    this.render();
  }

  newCanvas() {
    const { length, mask_id, pieces } = this.model;
    at("steps").max = at("steps").value = length; // a piece a step, as diffkit sample
    this.texts = pieces.map(textOf);
    this.canvas = new Array(length).fill(mask_id);
    this.fresh = new Set();
    this.tokens = this.canvas.map((_, position) => this.token(position));
    at("canvas").replaceChildren(...this.tokens);
  }

  token(position) {
    const token = newToken(position);
    token.addEventListener("click", () => this.hide(position));
    token.addEventListener("focus", () => this.tokens.forEach((one) => { one.tabIndex = one === token ? 0 : -1; }));
    return token;
  }

  // ---------------------------------------------------------------------------------------------- writing

  /** Start, Pause, Go on, Refill or Again: whatever the button says. */
  toggle() {
    this.isPlaying = !this.isPlaying;
    if (this.isPlaying) this.advance();
    this.say(this.isPlaying ? `Writing ${counted(this.hidden, "piece")}.` : "Paused.");
    this.renderControls();
  }

  step() {
    this.isPlaying = false;
    this.advance();
  }

  /** Ask the worker for one step, beginning a run if none is on; the seed counts up from run to run. */
  advance() {
    if (this.isBusy) return;
    if (!this.hidden) this.clear();
    const { seed, steps, temperature, topP, order } = this.settings;
    const message = { canvas: this.canvas };
    if (!this.run) {
      message.seed = at("seed").value = this.seedUsed && !at("keep").checked ? (seed + 1) % 2 ** 32 : seed;
      this.seedUsed = true;
      this.run = { step: 0, steps: Math.min(steps, this.hidden) };
      this.times = [];
    }
    this.isBusy = true;
    const how = { maskId: this.model.mask_id, temperature, topP, order, ...this.run };
    this.writer.worker.postMessage({ ...message, how });
    this.renderControls();
  }

  /** What one step has revealed. The reader may have hidden other pieces meanwhile, but not filled any. */
  receive({ positions, ids, ms }) {
    this.isBusy = false;
    if (this.run) this.reveal(positions, ids, ms); // else it was given up meanwhile
    if (this.isPlaying) this.advance();
    this.render();
  }

  reveal(positions, ids, ms) {
    positions.forEach((position, n) => { this.canvas[position] = ids[n]; });
    this.fresh = new Set(positions);
    this.times.push(ms);
    this.run.step += 1;
    if (!this.hidden) this.finish();
    else this.run.steps = Math.max(this.run.steps, this.run.step + 1);
  }

  finish() {
    this.say(`Finished after ${counted(this.run.step, "step")}. Click a word to hide it, and have it written anew.`);
    Object.assign(this, { run: null, isPlaying: false });
  }

  // ---------------------------------------------------------------------------------------------- hiding

  hideAll() {
    this.isPlaying = false;
    this.clear();
    this.say("All pieces are hidden.");
    this.render();
  }

  clear() {
    this.canvas.fill(this.model.mask_id);
    this.fresh.clear();
    this.run = null;
  }

  /** Hide one piece, or the sentence around it. */
  hide(position) {
    const isSentence = document.querySelector("[name=mode]:checked").value === "sentence";
    const [from, to] = isSentence ? this.sentenceAround(position) : [position, position];
    for (let i = from; i <= to; i++) this.canvas[i] = this.model.mask_id;
    if (!this.isPlaying && !this.isBusy) this.run = null;
    this.say(`${counted(this.hidden, "piece")} hidden. Refill writes what is hidden.`);
    this.render();
  }

  /** First and last position of the sentence: up to a full stop, a question or exclamation mark, or an end. */
  sentenceAround(position) {
    const ends = (i) => i < 0 || i >= this.canvas.length || /[.!?]/.test(this.texts[this.canvas[i]]) ||
      this.canvas[i] === this.model.eos_id;
    let from = position, to = position;
    while (!ends(from - 1)) from -= 1;
    while (!ends(to)) to += 1;
    return [from, Math.min(to, this.canvas.length - 1)];
  }

  /** Keys inside the text: it is one stop for Tab, arrows move within (Enter and Space click). */
  press(event) {
    const here = this.tokens.indexOf(document.activeElement), last = this.tokens.length - 1;
    const [before, after] = [here - 1, here + 1];
    const goal = { ArrowLeft: before, ArrowUp: before, ArrowRight: after, ArrowDown: after, Home: 0, End: last };
    if (here < 0 || event.ctrlKey || event.altKey || event.metaKey || !(event.key in goal)) return;
    event.preventDefault();
    this.tokens[goal[event.key]]?.focus();
  }

  // ---------------------------------------------------------------------------------------------- showing

  render() {
    this.tokens.forEach((token, position) => this.draw(token, position));
    this.renderModels();
    this.renderControls();
  }

  draw(token, position) {
    const { mask_id, eos_id, pad_id } = this.model, id = this.canvas[position], text = this.texts[id];
    const isHidden = id === mask_id, isNew = this.fresh.has(position) && !isHidden;
    const mark = new Map([[mask_id, "░░"], [eos_id, "∎"], [pad_id, "·"]]).get(id) ?? (text.trim() || "¶");
    token.classList.toggle("hidden", isHidden);
    token.classList.toggle("new", isNew);
    token.classList.toggle("apart", isHidden || id === eos_id || /^\s/.test(text));
    token.firstChild.textContent = mark;
    const said = new Map([[mask_id, "hidden"], [eos_id, "end of a story"], [pad_id, "padding"]]).get(id) ?? text;
    token.lastChild.textContent = isNew ? `${said}, just revealed` : said;
  }

  /** A button for each model: what it is good at, and whether it is loaded and in use. */
  renderModels() {
    this.writers.forEach((writer, n) => {
      const { about: { block, megabytes }, button } = writer, isUsed = writer === this.writer;
      const what = block ? `In blocks of ${block}: holds a thought longer`
        : "In any order: fills a hole with what stands after it in view";
      const size = writer === this.loading ? "loading" : `load ${megabytes} MB`;
      const state = isUsed ? "in use" : writer.model ? "loaded" : size;
      button.className = isUsed || (!this.writer && !n) ? "primary" : "";
      button.ariaPressed = String(isUsed);
      button.disabled = Boolean(this.loading);
      button.replaceChildren(what, element("small", "", state));
    });
  }

  renderControls() {
    const { settings, run } = this, isReady = Boolean(this.canvas);
    for (const id of ["go", "step", "hide-all"]) at(id).disabled = !isReady;
    at("steps-shown").textContent = settings.steps;
    at("temperature-shown").textContent = settings.temperature.toFixed(1);
    at("top-p-shown").textContent = settings.topP.toFixed(2);
    if (!isReady) return;
    const isBlank = this.hidden === this.canvas.length;
    const idle = !this.hidden ? "Again" : isBlank ? "Start" : `Refill ${this.hidden}`;
    at("go").textContent = this.isPlaying ? "Pause" : run ? "Go on" : idle;
    at("step").disabled = this.isPlaying || this.isBusy;
    const parts = [`${this.hidden} of ${this.canvas.length} pieces hidden`];
    if (run) parts.unshift(`Step ${run.step} of ${run.steps}`);
    const seconds = this.times.reduce((a, b) => a + b, 0) / 1000 / this.times.length;
    if (this.times.length) parts.push(`${seconds.toFixed(2)} s a step`);
    at("numbers").textContent = parts.join(" · ");
  }
}

/** Run the page, or say in it why that cannot be. */
function openStories() {
  if (typeof WORKER_CODE !== "undefined") return new StoriesPage();
  at("status").className = "error";
  at("status").textContent = "code.js is missing, this folder holds only the source of the page. Run " +
    "`python scripts/make_playground.py`, then open site/playground/stories/index.html.";
  for (const id of ["go", "step", "hide-all"]) at(id).disabled = true;
}

window.storiesPage = openStories();
