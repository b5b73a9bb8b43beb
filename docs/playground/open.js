"use strict";
/* The first page of the playground: the shipped model in it. */

/** The writer of a model that scripts/make_playground.py wrote into weights.js. */
function writerOf(shipped) {
  const { words, length, mask_id: maskId, eos_id: eosId, pad_id: padId } = shipped;
  const ids = { maskId, eosId, padId }, denoiser = new Denoiser(shipped.config, unpack(shipped.weights));
  const language = shipped.language ? new StoryLanguage(shipped.language, words, length, ids) : undefined;
  return new Writer({ words, length, ...ids }, denoiser, language);
}

/** Run the page, or say in it why that cannot be. */
function openPlayground() {
  try {
    if (typeof SHIPPED === "undefined") {
      throw new Error("weights.js is missing, this folder holds only the source of the page. Run " +
        "`python scripts/make_playground.py`, then open site/playground/index.html.");
    }
    at("quality").textContent = quality(SHIPPED);
    const showRecipe = (settings) => { at("recipe").textContent = SHIPPED.language ? recipe(SHIPPED, settings) : ""; };
    window.playground = new Playground(writerOf(SHIPPED), showRecipe);
  } catch (error) {
    at("status").className = "error";
    at("status").textContent = error.message;
    for (const id of ["go", "step", "hide-all"]) at(id).disabled = true;
  }
}

openPlayground();
