"use strict";
/* What the page says and draws, piece by piece, from plain values. Text enters it as text, never as HTML. */

const SHOWN = 5; // words of a prediction
const BLANK = "░░";

/** An element by its id. */
function at(id) {
  return document.getElementById(id);
}

/** A new element with a class and a text. */
function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** A share as a percentage, finer near 0 and 1. */
function percent(p) {
  if (p > 0 && p < 0.001) return "<0.1%";
  if (p > 0.999 && p < 1) return ">99.9%";
  return (p > 0 && p < 0.1) || (p > 0.99 && p < 1) ? `${(100 * p).toFixed(1)}%` : `${Math.round(100 * p)}%`;
}

/** "1 word", "2 words". */
function counted(n, what) {
  return `${n} ${what}${n === 1 ? "" : "s"}`;
}

/** A token as the canvas draws it. */
function drawn(id, { maskId, eosId, padId, words }) {
  return new Map([[maskId, "░░░"], [eosId, "∎"], [padId, "·"]]).get(id) ?? words[id];
}

/** A token as it is read aloud. */
function spoken(id, { maskId, eosId, padId, words }) {
  const marks = [[maskId, "hidden"], [eosId, "end of the story"], [padId, "padding"]];
  return new Map(marks).get(id) ?? (words[id] === "." ? "full stop" : words[id]);
}

/** One position of the canvas: a button with what is seen and what is read aloud. */
function newToken(position) {
  const token = element("button", "token"), glyph = element("span", "glyph");
  token.type = "button";
  token.tabIndex = position ? -1 : 0;
  glyph.ariaHidden = "true";
  token.append(glyph, element("span", "said"));
  return token;
}

/** Show the state of one position in its button. */
function drawToken(token, position, writer) {
  const id = writer.canvas[position], isNew = writer.fresh[position], isLocked = writer.locked[position];
  const isHidden = id === writer.maskId, isFiller = id === writer.padId || id === writer.eosId;
  for (const [name, on] of Object.entries({ hidden: isHidden, new: isNew, locked: isLocked, filler: isFiller })) {
    token.classList.toggle(name, on);
  }
  token.firstChild.textContent = drawn(id, writer);
  const where = isHidden && `position ${position + 1}`;
  const notes = [spoken(id, writer), isNew && "just revealed", isLocked && "locked", where];
  token.lastChild.textContent = notes.filter(Boolean).join(", ");
}

/** The canvas as prose: up to the end of the story, with blanks. */
function drawStory(paragraph, writer) {
  const { canvas, eosId, padId, maskId, length, hidden, gap } = writer;
  if (hidden === length) return paragraph.replaceChildren(element("span", "quiet", "Not a word is written yet."));
  const end = canvas.findIndex((id) => id === eosId || id === padId);
  const tokens = canvas.slice(0, end < 0 ? length : end).map((id) => (id === maskId ? BLANK : drawn(id, writer)));
  const text = tokens.join(gap).replace(/ (?=[.,!?;:]|'s\b)/g, "");
  paragraph.replaceChildren(...text.split(/(░░)/).map((part) => (part === BLANK ? element("s", "", part) : part)));
}

/** Does the canvas, or what is visible of it, belong to the language? Empty where there is nothing to say. */
function verdict({ hidden, length, leftAt, language, run, canvas }) {
  if (!language || hidden === length) return "";
  if (hidden && leftAt === null) return "✓ Some story of the language fits.";
  if (hidden) return `✗ No story of the language fits these words${leftAt && run ? `, since step ${leftAt}` : ""}.`;
  if (leftAt !== null) return `✗ Not a story of the language${leftAt ? `: none fitted after step ${leftAt}` : ""}.`;
  const nats = (x) => x.toFixed(1).replace("-", "−");
  return `✓ A story of the language, with log-probability ${nats(language.logProb(canvas))} nats ` +
    `(${nats(-language.entropyNats)} is the average).`;
}

/** A table of the likeliest words: the model's probabilities, and the exact ones where they are known. */
function drawPrediction(body, { model, exact }, writer) {
  const best = [...model.keys()].sort((a, b) => model[b] - model[a] || a - b).slice(0, SHOWN);
  body.replaceChildren(...best.map((id) => {
    const row = element("tr", ""), word = element("th", "word", drawn(id, writer));
    word.scope = "row";
    word.title = spoken(id, writer);
    row.append(word, shareCell("share", model[id]));
    if (writer.language) row.append(shareCell("share exact", exact ? exact[id] : null));
    return row;
  }));
}

/** A probability as a number over a bar; null: there is none. */
function shareCell(className, p) {
  const cell = element("td", "");
  cell.append(element("span", className, p === null ? "–" : percent(p)));
  cell.style.setProperty("--p", p ?? 0);
  return cell;
}

/** What the table of predictions shows. */
function predictionCaption(position, { exact }, writer, temperature) {
  const id = writer.canvas[position];
  const given = id === writer.maskId ? "given all visible words" : `were “${spoken(id, writer)}” hidden`;
  const cooled = temperature === 1 ? "" : ` The model's numbers are at temperature ${temperature.toFixed(1)}.`;
  const none = exact === null ? " No story of the language fits the others." : "";
  return `Position ${position + 1}, ${given}.${cooled}${none}`;
}

/** How good the model is, from its evaluation.json. */
function quality({ name, parameters, evaluation, length }) {
  const size = `The model, ${name}, has ${parameters.toLocaleString("en")} parameters.`;
  if (!evaluation?.quality) return `${size} How good its stories are has not been measured.`;
  const rows = Object.entries(evaluation.quality).sort(([a], [b]) => b - a);
  const shares = rows.map(([steps, { valid }]) =>
    `${Math.round(100 * valid)}% ${Number(steps) === length ? "at one position a step" : `in ${steps} steps`}`);
  return `${size} It is not perfect: of ${evaluation.samples} stories written in random order at temperature 1, ` +
    `those that belong to the language were ${shares.join(", ")}.`;
}

/** The program in Python that writes what a run from a blank canvas writes here. */
function recipe({ name, length, language }, { steps, order, temperature, seed }) {
  return [
    "import torch",
    "from diffkit import load_language, load_model",
    "from diffkit.sampling.sampler import sample",
    "",
    `model, language = load_model("${name}"), load_language("${language.name}")`,
    `rng = torch.Generator().manual_seed(${seed})`,
    "ids = sample(",
    `    model.process, model, shape=(1, ${length}), rng=rng,`,
    `    steps=${steps}, order="${order}", temperature=${temperature},`,
    ")",
    "print(language.decode(ids)[0])",
  ].join("\n");
}
