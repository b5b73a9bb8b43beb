"use strict";
/* The page at work: it shows a Writer, and hands it what the reader does. */

const FEWEST_MS = 110, MOST_MS = 900, WHOLE_RUN_MS = 7500; // between two steps, so that a run takes about this long
const REST_MS = 40; // a pointer that passes over a position without resting there asks nothing

class Playground {
  /** writer: what is shown; onChange is called, with the settings, whenever something may have changed. */
  constructor(writer, onChange = () => {}) {
    this.onChange = onChange;
    this.timer = null; // set while it plays
    this.resting = null; // set between pointing at a position and showing its predictions
    this.seedUsed = false;
    this.listen();
    this.open(writer);
  }

  /** Show a writer in the place of the one before. */
  open(writer) {
    this.pause();
    this.writer = writer;
    this.position = null; // whose predictions are shown
    at("prediction").hidden = true;
    at("steps").max = at("steps").value = writer.length;
    at("canvas").replaceChildren(...writer.canvas.map((_, position) => this.token(position)));
    this.tokens = [...at("canvas").children];
    for (const part of document.querySelectorAll(".needs-language")) part.hidden = !writer.language;
    this.render();
    this.say(`All ${writer.length} positions are hidden. Start writes a story, Step takes one step.`);
  }

  token(position) {
    const token = newToken(position);
    token.addEventListener("click", () => this.click(position));
    token.addEventListener("pointerenter", () => this.show(position));
    token.addEventListener("focus", () => this.show(position));
    return token;
  }

  listen() {
    at("go").addEventListener("click", () => this.go());
    at("step").addEventListener("click", () => this.step());
    at("hide-all").addEventListener("click", () => this.hideAll());
    at("seed").addEventListener("input", () => { this.seedUsed = false; });
    at("settings").addEventListener("input", () => this.render());
    at("settings").addEventListener("submit", (event) => event.preventDefault());
    at("canvas").addEventListener("keydown", (event) => this.press(event));
  }

  /** What is set: steps, order, temperature, seed. */
  get settings() {
    const seed = Math.min(2 ** 32 - 1, Math.max(0, Math.floor(Number(at("seed").value)) || 0));
    const [steps, temperature] = [Number(at("steps").value), Number(at("temperature").value)];
    return { steps, temperature, order: at("order").value, seed };
  }

  say(text) {
    at("status").textContent = text;
  }

  // ---------------------------------------------------------------------------------------------- the buttons

  /** Begin a run, if none is on; the seed counts up from run to run unless it is kept or typed. */
  begin() {
    if (this.writer.run) return;
    if (!this.writer.hidden) this.writer.hideAll();
    const { seed, steps } = this.settings;
    at("seed").value = this.seedUsed && !at("keep").checked ? (seed + 1) % 2 ** 32 : seed;
    this.seedUsed = true;
    this.writer.begin(steps, this.settings.seed);
  }

  /** Start, Pause, Go on, Refill or Again: whatever the button says. */
  go() {
    const { writer } = this, isPlaying = this.timer !== null;
    this.pause();
    if (!isPlaying) this.begin();
    const { step, steps } = writer.run, left = counted(steps - step, "step");
    if (isPlaying) this.say(`Paused at step ${step} of ${steps}.`);
    else this.say(`Writing ${counted(writer.hidden, "position")} in ${left}.`);
    if (!isPlaying) this.tick();
    this.render();
  }

  tick() {
    const wait = Math.min(MOST_MS, Math.max(FEWEST_MS, WHOLE_RUN_MS / this.writer.run.steps));
    this.timer = setTimeout(() => {
      this.advance();
      if (this.writer.run) this.tick();
      this.render();
    }, wait);
  }

  pause() {
    clearTimeout(this.timer);
    this.timer = null;
  }

  step() {
    this.pause();
    this.begin();
    const { step, steps } = this.writer.run;
    this.advance();
    const words = this.writer.canvas.filter((_, i) => this.writer.fresh[i]).map((id) => spoken(id, this.writer));
    if (this.writer.run) this.say(`Step ${step + 1} of ${steps}: ${words.join(", ") || "nothing new"}.`);
    this.render();
  }

  /** One step of the writer. */
  advance() {
    const { steps } = this.writer.run, { temperature, order } = this.settings;
    this.writer.advance(temperature, order);
    if (!this.writer.run) this.finished(`Finished after ${counted(steps, "step")}.`);
  }

  finished(text) {
    this.pause();
    this.say(`${text} ${verdict(this.writer)}`);
  }

  hideAll() {
    this.pause();
    this.writer.hideAll();
    this.say(`${counted(this.writer.hidden, "position")} hidden, ${this.writer.length - this.writer.hidden} locked.`);
    this.render();
  }

  // ---------------------------------------------------------------------------------------------- single positions

  /** Hide a word, fill a hidden position, or lock, as the choice beside the buttons says. */
  click(position) {
    const { writer } = this, id = writer.canvas[position], word = `“${spoken(id, writer)}”`;
    if (document.querySelector("[name=mode]:checked").value === "lock") {
      this.lock(position);
    } else if (id === writer.maskId) {
      this.fill(position);
    } else if (writer.locked[position]) {
      this.say(`${word} is locked. Press L to unlock it, or choose that a click locks.`);
    } else {
      writer.hide(position);
      this.say(`${word} is hidden. Refill writes hidden positions anew.`);
    }
    this.render();
  }

  fill(position) {
    this.pause();
    this.begin();
    this.writer.fill(position, this.settings.temperature);
    const word = `Position ${position + 1}: ${spoken(this.writer.canvas[position], this.writer)}.`;
    if (this.writer.run) this.say(word);
    else this.finished(word);
  }

  lock(position) {
    const { writer } = this;
    const isHidden = writer.canvas[position] === writer.maskId;
    if (isHidden) return this.say("A hidden position cannot be locked. Fill it first.");
    writer.toggleLock(position);
    const state = writer.locked[position] ? "locked" : "no longer locked";
    this.say(`“${spoken(writer.canvas[position], writer)}” is ${state}.`);
  }

  /** Keys inside the canvas: it is one stop for Tab, arrows move within, L locks (Enter and Space click). */
  press(event) {
    const { tokens } = this, here = tokens.indexOf(document.activeElement), last = tokens.length - 1;
    const columns = tokens.filter((token) => token.offsetTop === tokens[0].offsetTop).length;
    const goal = {
      ArrowLeft: here - 1, ArrowRight: here + 1, ArrowUp: here - columns, ArrowDown: here + columns, Home: 0, End: last,
    };
    if (here < 0 || event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key in goal) {
      event.preventDefault();
      tokens[goal[event.key]]?.focus();
    } else if (event.key.toLowerCase() === "l") {
      this.lock(here);
      this.render();
    }
  }

  // ---------------------------------------------------------------------------------------------- showing

  render() {
    const { writer } = this;
    this.tokens.forEach((token, position) => drawToken(token, position, writer));
    drawStory(at("story"), writer);
    at("verdict").textContent = verdict(writer);
    at("verdict").classList.toggle("no", writer.leftAt !== null);
    this.renderControls();
    this.renderBelief();
  }

  renderControls() {
    const { run, hidden, length, calls, locked } = this.writer, { settings } = this;
    const isBlank = hidden === length - locked.filter(Boolean).length;
    const idle = !hidden ? "Again" : isBlank ? "Start" : `Refill ${hidden}`;
    at("go").textContent = this.timer !== null ? "Pause" : run ? "Go on" : idle;
    at("go").disabled = at("step").disabled = locked.every(Boolean);
    at("steps-shown").textContent = settings.steps;
    at("temperature-shown").textContent = settings.temperature.toFixed(1);
    const parts = [`${hidden} of ${length} positions hidden`];
    if (run) parts.unshift(`Step ${run.step} of ${run.steps}`);
    if (calls.count) parts.push(counted(calls.count, "network call"), `${(calls.ms / calls.count).toFixed(1)} ms each`);
    at("numbers").textContent = parts.join(" · ");
    this.onChange(settings);
  }

  /** Show the predictions of a position once the pointer or the focus rests on it. */
  show(position) {
    this.position = position;
    this.tokens.forEach((token, i) => {
      token.tabIndex = i === position ? 0 : -1;
      token.classList.toggle("chosen", i === position);
    });
    clearTimeout(this.resting);
    this.resting = setTimeout(() => this.renderBelief(), REST_MS);
  }

  renderBelief() {
    if (this.position === null) return;
    const { temperature } = this.settings, predictions = this.writer.predictionsAt(this.position, temperature);
    at("prediction-position").textContent = predictionCaption(this.position, predictions, this.writer, temperature);
    at("prediction").hidden = false;
    drawPrediction(at("prediction").tBodies[0], predictions, this.writer);
  }
}
