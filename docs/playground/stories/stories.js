"use strict";
/* The page of real stories: it loads the model when it is asked to, and shows what the worker writes. */

class StoriesPage {
  constructor() {
    Object.assign(this, { run: null, isPlaying: false, isBusy: false, seedUsed: false, times: [] });
    at("load").textContent = `Load the model (${ABOUT.megabytes} MB)`;
    at("about").textContent = `The model, ${ABOUT.name}, has ${ABOUT.parameters.toLocaleString("en")} parameters. ` +
      "Its card in the course says on which text it was trained and how well it does.";
    at("load").addEventListener("click", () => this.load());
    at("go").addEventListener("click", () => this.toggle());
    at("step").addEventListener("click", () => this.step());
    at("hide-all").addEventListener("click", () => this.hideAll());
    at("settings").addEventListener("input", () => this.renderControls());
    at("settings").addEventListener("submit", (event) => event.preventDefault());
    at("seed").addEventListener("input", () => { this.seedUsed = false; });
    at("canvas").addEventListener("keydown", (event) => this.press(event));
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

  get hidden() {
    return this.canvas.filter((id) => id === this.model.mask_id).length;
  }

  // ---------------------------------------------------------------------------------------------- loading

  /** weights.js is a script, as a page opened from disk may load those, but not fetch files. */
  load() {
    at("load").disabled = true;
    this.say("Loading the model.");
    const script = document.createElement("script");
    script.src = "weights.js";
    script.addEventListener("load", () => this.begin(STORIES));
    script.addEventListener("error", () => this.say("weights.js is missing: run python scripts/make_playground.py."));
    document.body.append(script);
  }

  begin(model) {
    this.model = model;
    this.texts = model.pieces.map(textOf);
    this.worker = new Worker(URL.createObjectURL(new Blob([WORKER_CODE], { type: "text/javascript" })));
    this.worker.addEventListener("message", ({ data }) => (data.isReady ? this.ready() : this.receive(data)));
    this.worker.addEventListener("error", (error) => this.say(`The model stopped: ${error.message}`));
    this.worker.postMessage({ model: { config: model.config, weights: model.weights } });
  }

  ready() {
    const { length, mask_id } = this.model;
    at("load").hidden = true;
    at("steps").max = length;
    this.canvas = new Array(length).fill(mask_id);
    this.fresh = new Set();
    this.tokens = this.canvas.map((_, position) => this.token(position));
    at("canvas").replaceChildren(...this.tokens);
    this.say(`All ${length} pieces of words are hidden. Start writes a story.`);
    this.render();
    at("go").focus();
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
    this.worker.postMessage({ ...message, how: { maskId: this.model.mask_id, temperature, topP, order, ...this.run } });
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
    at("step").disabled = this.isPlaying;
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
  for (const id of ["load", "go", "step", "hide-all"]) at(id).disabled = true;
}

window.storiesPage = openStories();
