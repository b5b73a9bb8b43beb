"use strict";
/* The curve of the training, drawn into the SVG of index.html. Sizes are pixels, so that texts stay legible. */

const MARGIN = { left: 44, right: 12, top: 14, bottom: 40 };

/** reports: those of worker.js so far; entropy: the lowest that any network can reach, nats a token. */
function drawCurve(svg, reports, entropy) {
  const width = svg.clientWidth - MARGIN.left - MARGIN.right, height = svg.clientHeight - MARGIN.top - MARGIN.bottom;
  const steps = reports[0].steps, most = Math.ceil(2 * Math.max(reports[0].bound, entropy)) / 2;
  const x = (step) => MARGIN.left + (width * step) / steps;
  const y = (nats) => MARGIN.top + height * (1 - Math.min(1, nats / most));
  const known = (key) => reports.filter((report) => report[key] !== null);
  const points = (key) => known(key).map((report) => `${x(report.done)},${y(report[key])}`).join(" ");
  svg.querySelector(".loss").setAttribute("points", points("loss"));
  svg.querySelector(".bound").setAttribute("points", points("bound"));
  const now = reports.at(-1);
  place(svg.querySelector(".now"), { cx: x(now.done), cy: y(now.bound) });
  place(svg.querySelector(".entropy"), { x1: x(0), x2: x(steps), y1: y(entropy), y2: y(entropy) });
  place(svg.querySelector(".ground"), { x1: x(0), x2: x(steps), y1: y(0), y2: y(0) });
  place(svg.querySelector(".what-x"), { x: x(steps / 2), y: y(0) + 34 });
  place(svg.querySelector(".what-y"), { x: MARGIN.left + 6, y: MARGIN.top + 4 });
  [...svg.querySelectorAll(".tick-x")].forEach((text, i, all) => {
    text.textContent = Math.round((steps * i) / (all.length - 1));
    place(text, { x: x((steps * i) / (all.length - 1)), y: y(0) + 17 });
  });
  [...svg.querySelectorAll(".tick-y")].forEach((text, i, all) => {
    text.textContent = ((most * i) / (all.length - 1)).toFixed(2);
    place(text, { x: MARGIN.left - 6, y: y((most * i) / (all.length - 1)) + 4 });
  });
}

/** Set attributes of an element. */
function place(element, attributes) {
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
}
