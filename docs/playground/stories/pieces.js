"use strict";
/* Pieces of words as text. Tokenizers of bytes (byte-level BPE) write each byte as one printable character. */

/** From such a character to its byte: printable ones stand for themselves, the others follow from 256 on. */
const BYTES = new Map();
for (let byte = 0, next = 256; byte < 256; byte++) {
  const isPrintable = (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  BYTES.set(String.fromCharCode(isPrintable ? byte : next++), byte);
}

/** The text of a piece, "Ġonce" being " once"; half a letter is a replacement character. */
function textOf(piece) {
  return new TextDecoder().decode(Uint8Array.from([...piece], (character) => BYTES.get(character) ?? 63));
}
