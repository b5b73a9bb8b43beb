/* The unmasking player. `mount(element, data)` builds it from the plain data that film.py makes, and changes nothing
   outside the element. It needs no kernel, no network and no other script. Words become text, never markup. */

const HIDDEN = "░░░"; // text.py shows a masked token so
const SLOWEST_IF_LESS_MOTION = 1000; // milliseconds a frame, for readers who asked their system for less motion

/** An element with attributes and children; strings among the children become text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** Keys that mean a number do something with it, and nothing else: the page does not scroll. */
function onKeys(element, meaningOf, act) {
  element.addEventListener("keydown", (event) => {
    const meaning = event.altKey || event.ctrlKey || event.metaKey ? undefined : meaningOf(event.key);
    if (meaning === undefined) return;
    event.preventDefault();
    event.stopPropagation();
    act(meaning);
  });
}

const numbersOf = (text) => (text ? text.split(" ").map((digits) => parseInt(digits, 36)) : []);
const rowsOf = (text) => text.split(";").map(numbersOf);

/** Every frame from what changes between them: which word stands where, and since which frame it does. */
function framesOf(data) {
  const frames = [{ words: numbersOf(data.start), since: numbersOf(data.start).map(() => 0), before: [] }];
  const moves = data.captions.length > 1 ? rowsOf(data.moves) : [];
  moves.forEach((move, n) => {
    const last = frames[n];
    const next = { words: [...last.words], since: [...last.since], before: last.words };
    for (let k = 0; k < move.length; k += 2) {
      next.words[move[k]] = move[k + 1];
      next.since[move[k]] = n + 1;
    }
    frames.push(next);
  });
  return frames;
}

/** What is known of one player's run: words, their state, their candidates. */
function filmOf(data) {
  const frames = framesOf(data);
  const given = new Set(numbersOf(data.given));
  const predictions = rowsOf(data.predictions);
  const tables = rowsOf(data.tables);
  const far = data.far ? rowsOf(data.far) : null;
  const farthest = far ? far.flat().reduce((most, one) => Math.max(most, one), 1) : 1;
  const textOf = (word) => data.words[word].trim() || "␣";

  /** kind: a class of player.css; label: the same in words; text: what the page shows, null for nothing. */
  function token(i, position) {
    const word = frames[i].words[position];
    const isNew = i > 0 && frames[i].since[position] === i;
    const wasHidden = isNew && frames[i].before[position] === data.hidden;
    if (word === data.hidden) {
      return { text: HIDDEN, kind: isNew ? "hidden dk-again" : "hidden", label: isNew ? "just hidden" : "hidden" };
    }
    const text = word !== data.pad ? textOf(word) : isNew && !given.has(position) ? "·" : null;
    if (given.has(position)) return { text, kind: "given", label: "given" };
    if (isNew) return { text, kind: "new", label: wasHidden ? "just revealed" : "just changed" };
    return { text, kind: "old", label: "" };
  }

  const isGlued = (i, position) => {
    const word = frames[i].words[position];
    return data.spaces && word !== data.hidden && word !== data.pad && !data.words[word].startsWith(" ");
  };

  /** The candidates of a position as [word, chance, ...], and since when and of when they are, in words. */
  function candidates(i, position) {
    const line = predictions[position] || [];
    let table = -1;
    for (let k = 0; k < line.length && line[k] <= i; k += 2) table = line[k + 1];
    const found = table < 0 ? [] : tables[table];
    const width = 1 + data.shows.length;
    const list = [];
    for (let k = 0; k < found.length; k += width) list.push([textOf(found[k]), ...found.slice(k + 1, k + width)]);
    const isOpen = data.hidden < 0 || frames[i].words[position] === data.hidden;
    const then = isOpen ? (i > data.asked ? "one step before" : "now") : "when it was revealed";
    return { list, then };
  }

  /** One line about a position. */
  function story(i, position) {
    const { label } = token(i, position);
    const word = frames[i].words[position];
    const since = frames[i].since[position];
    const whence = label || (since ? `here since step ${since}` : "here from the start");
    const distance = far ? `, at distance ${(far[i][position] / 10).toFixed(1)} from its word` : "";
    const name = word === data.hidden ? HIDDEN : textOf(word);
    return { name, label: `position ${position + 1}: ${whence}${distance}` };
  }

  return {
    data, token, isGlued, candidates, story, last: frames.length - 1, positions: frames[0].words.length,
    share: (i, position) => (far ? far[i][position] / farthest : 0),
  };
}

/** The candidates of a position as a table of words, bars and numbers. */
function tableOf(film, { list, then }) {
  const heads = film.data.shows.map((name) => make("th", { scope: "col" }, name));
  const body = list.map(([word, ...chances]) => {
    const cells = chances.map((chance, n) => {
      const bar = make("span", { class: `dk-bar dk-${film.data.shows[n]}`, "aria-hidden": "true" });
      bar.style.width = `${(chance / 1000) * 6}em`;
      return make("td", {}, bar, (chance / 1000).toFixed(3));
    });
    return make("tr", {}, make("th", { scope: "row" }, word), ...cells);
  });
  return make("table", {}, make("caption", {}, `Likely here, ${then}`),
    make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "word"), ...heads)), make("tbody", {}, ...body));
}

/** One text with its caption and its details; `show(i, quietly)` draws frame i. */
function board(data, showsTitle) {
  const film = filmOf(data);
  const id = `dk-${Math.random().toString(36).slice(2)}`;
  const caption = make("p", { class: "dk-caption", role: "status", "aria-live": "polite" });
  const details = make("div", { class: "dk-details", id });
  const text = make("div", { class: "dk-text", role: "listbox", "aria-orientation": "horizontal",
    "aria-label": `${data.title}: its tokens; the arrow keys go from one to the next` });
  const tokens = Array.from({ length: film.positions }, () => make("span", { role: "option", tabindex: "-1" }));
  const gaps = tokens.map(() => document.createTextNode(" "));
  tokens.forEach((token, position) => text.append(gaps[position], token));
  let [frame, active, touched] = [0, 0, data.shows.length > 0]; // predictions of the first token are shown below

  const isShown = (position) => !tokens[position].hidden;
  const nearest = (position) => {
    const shown = tokens.map((_, n) => n).filter(isShown);
    return shown.reduce((best, n) => (Math.abs(n - position) < Math.abs(best - position) ? n : best), shown[0] ?? 0);
  };

  function detail() {
    tokens.forEach((token, n) => {
      token.tabIndex = n === active ? 0 : -1;
      token.setAttribute("aria-selected", String(touched && n === active));
      if (touched && n === active) token.setAttribute("aria-describedby", id);
      else token.removeAttribute("aria-describedby");
    });
    if (!touched) {
      details.replaceChildren(make("p", {}, "Point at a token, or reach it with the arrow keys, to see more."));
      return;
    }
    const { name, label } = film.story(frame, active);
    const found = film.candidates(frame, active);
    const line = make("p", {}, make("strong", {}, name), ` ${label}`);
    const none = film.data.shows.length && !label.endsWith("given") ? "No prediction for this position." : "";
    details.replaceChildren(line, found.list.length ? tableOf(film, found) : make("p", {}, none));
  }

  function select(position, focuses) {
    [active, touched] = [position, true];
    detail();
    if (focuses) tokens[position].focus();
  }

  function show(i, quietly) {
    const hadFocus = tokens[active] === document.activeElement;
    frame = i;
    tokens.forEach((token, position) => {
      const { text: shown, kind, label } = film.token(i, position);
      token.className = `dk-token dk-${kind}`;
      token.hidden = shown === null;
      token.textContent = shown ?? "";
      const name = kind.startsWith("hidden") ? "" : film.story(i, position).name;
      token.setAttribute("aria-label", [name, label].filter(Boolean).join(", "));
      token.style.setProperty("--dk-far", `${Math.round(100 * film.share(i, position))}%`);
      gaps[position].data = film.isGlued(i, position) ? "" : " ";
    });
    text.style.minHeight = `${Math.max(text.offsetHeight, parseFloat(text.style.minHeight) || 0)}px`; // nothing jumps
    caption.setAttribute("aria-live", quietly ? "off" : "polite"); // while playing, not every frame is read out
    caption.textContent = data.captions[i];
    if (!isShown(active)) active = nearest(active);
    detail();
    if (hadFocus) tokens[active].focus();
  }

  const placeOf = (event) => tokens.indexOf(event.target.closest(".dk-token"));
  text.addEventListener("pointerover", (event) => placeOf(event) >= 0 && select(placeOf(event), false));
  text.addEventListener("focusin", (event) => placeOf(event) >= 0 && select(placeOf(event), false));
  onKeys(text, (key) => {
    const shown = tokens.map((_, n) => n).filter(isShown);
    const here = shown.indexOf(active);
    const to = { ArrowRight: here + 1, ArrowDown: here + 1, ArrowLeft: here - 1, ArrowUp: here - 1, Home: 0,
      End: shown.length - 1 }[key];
    return to === undefined ? to : shown[Math.min(Math.max(to, 0), shown.length - 1)];
  }, (position) => select(position, true));

  const title = showsTitle ? [make("p", { class: "dk-title" }, data.title)] : [];
  if (data.far) text.classList.add("dk-points");
  if (data.shows.length) details.classList.add("dk-tables");
  return { element: make("div", { class: "dk-board" }, ...title, text, caption, details), show, last: film.last };
}

/** Buttons, slider and speed over a clock of frames 0..last; calls `show(i, quietly)` when the frame changes. */
function controls(last, interval, show) {
  const step = make("input", { type: "range", class: "dk-slider", min: 0, max: last, value: 0, "aria-label": "Step" });
  const speed = make("select", { class: "dk-speed", "aria-label": "Speed" },
    ...[0.5, 1, 2].map((times) => make("option", { value: times }, `${times}×`)));
  const play = make("button", { type: "button", class: "dk-play" }, "Play");
  speed.value = "1";
  let [now, timer] = [0, null];

  function go(to, quietly) {
    now = Math.min(Math.max(to, 0), last);
    step.value = now;
    step.setAttribute("aria-valuetext", `${now} of ${last}`);
    show(now, quietly);
  }

  function stop() {
    clearTimeout(timer);
    timer = null;
    play.textContent = "Play";
  }

  function wait() {
    const isCalm = window.matchMedia("(prefers-reduced-motion: reduce)").matches;
    return Math.max(interval / Number(speed.value), isCalm ? SLOWEST_IF_LESS_MOTION : 0);
  }

  function tick() {
    if (!play.isConnected) return stop(); // the output was cleared
    const isDone = now + 1 >= last;
    if (isDone) stop();
    go(now + 1, !isDone);
    if (!isDone) timer = setTimeout(tick, wait());
  }

  play.addEventListener("click", () => {
    if (timer !== null) {
      stop();
      return go(now, false); // say where it stopped
    }
    if (now === last) go(0, true);
    play.textContent = "Pause";
    timer = setTimeout(tick, wait());
  });
  const jump = (sign, label, name, target) => {
    const button = make("button", { type: "button", class: `dk-${name}`, "aria-label": label, title: label }, sign);
    button.addEventListener("click", () => (stop(), go(target(), false)));
    return button;
  };
  step.addEventListener("input", () => (stop(), go(Number(step.value), false)));
  onKeys(step, (key) => ({ ArrowRight: now + 1, ArrowUp: now + 1, ArrowLeft: now - 1, ArrowDown: now - 1, Home: 0,
    End: last, PageUp: now + 10, PageDown: now - 10 })[key], (to) => (stop(), go(to, false))); // else JupyterLab does
  const element = make("div", { class: "dk-controls" }, play, jump("«", "First step", "first", () => 0),
    jump("‹", "One step back", "back", () => now - 1), jump("›", "One step on", "next", () => now + 1),
    jump("»", "Last step", "last", () => last), step, speed);
  return { element, go, stop };
}

/** Build a player, or several on one clock (`data.players`), instead of what the element holds; returns its stop. */
function mount(el, data) {
  try {
    const players = data.players || [data];
    const boards = players.map((player) => board(player, players.length > 1));
    const last = Math.max(...boards.map((one) => one.last));
    const bar = controls(last, players[0].interval, (i, quietly) =>
      boards.forEach((one) => one.show(last ? Math.round((i / last) * one.last) : 0, quietly)));
    const title = players.map((player) => player.title).join(" | ");
    const head = players.length > 1 ? [] : [make("p", { class: "dk-title" }, title)];
    // the last attribute: keys pressed in here are none of JupyterLab's shortcuts
    const root = make("div",
      { class: "dk-player", role: "group", "aria-label": title, "data-lm-suppress-shortcuts": "true" }, ...head,
      bar.element, make("div", { class: "dk-boards" }, ...boards.map((one) => one.element)));
    el.replaceChildren(root);
    bar.go(0, false);
    return bar.stop;
  } catch (error) {
    const words = `This player cannot be shown: ${error.message}`;
    el.replaceChildren(make("p", { class: "dk-player", role: "alert" }, words));
    return () => {};
  }
}

/** anywidget's hook. */
function render({ model, el }) {
  return mount(el, model.get("data"));
}

export { mount };
export default { render };
