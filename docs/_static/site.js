// What scrolls sideways can be scrolled with the keyboard: it gets a place in the tab order, and only then.
"use strict";
(() => {
  const selector = "pre, .table-wrapper, .math-block, .output.text_html";
  function update() {
    for (const box of document.querySelectorAll(selector)) {
      if (box.scrollWidth > box.clientWidth + 1) {
        box.tabIndex = 0;
      } else if (box.tabIndex === 0 && box.hasAttribute("tabindex")) {
        box.removeAttribute("tabindex");
      }
    }
  }
  update();
  addEventListener("load", update);
  addEventListener("resize", update);
  document.addEventListener("toggle", update, true); // a hint that opens
})();
