/**
 * How byte-pair tokenizers cut a text into pieces before they merge bytes: tiktoken's patterns (tiktoken_ext/openai_public.py),
 * written so that JavaScript's regular expressions find the same pieces. White space is Unicode's, which `\s` is not here:
 * that has U+FEFF besides and lacks U+0085. Where tiktoken ignores case, `s` is also U+017F, the long s. Possessive
 * quantifiers, which JavaScript lacks, make tiktoken's faster and find nothing else.
 */

const SPACE = String.raw`\p{White_Space}`, NO_SPACE = String.raw`\P{White_Space}`;
const SYMBOLS = String.raw` ?[^\p{White_Space}\p{L}\p{N}]+`;
const CONTRACTION = `'(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])`;
/** White space before a word, without the last one, which belongs to the word. */
const SPACES = `${SPACE}+(?!${NO_SPACE})`;

function pattern(...alternatives: string[]): RegExp {
  return new RegExp(alternatives.join("|"), "gu");
}

/** GPT-2's, with its vocabulary r50k. */
export const R50K: RegExp = pattern(
  "'(?:[sdmt]|ll|ve|re)",
  String.raw` ?\p{L}+`,
  String.raw` ?\p{N}+`,
  SYMBOLS,
  SPACES,
  `${SPACE}+`,
);

/** GPT-3.5's and GPT-4's. */
export const CL100K: RegExp = pattern(
  CONTRACTION,
  String.raw`[^\r\n\p{L}\p{N}]?\p{L}+`,
  String.raw`\p{N}{1,3}`,
  String.raw`${SYMBOLS}[\r\n]*`,
  `${SPACE}+$`,
  String.raw`${SPACE}*[\r\n]`,
  SPACES,
  SPACE,
);

const UPPER = String.raw`[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`, LOWER = String.raw`[\p{Ll}\p{Lm}\p{Lo}\p{M}]`;

/** GPT-4o's. */
export const O200K: RegExp = pattern(
  String.raw`[^\r\n\p{L}\p{N}]?${UPPER}*${LOWER}+(?:${CONTRACTION})?`,
  String.raw`[^\r\n\p{L}\p{N}]?${UPPER}+${LOWER}*(?:${CONTRACTION})?`,
  String.raw`\p{N}{1,3}`,
  String.raw`${SYMBOLS}[\r\n/]*`,
  String.raw`${SPACE}*[\r\n]+`,
  SPACES,
  `${SPACE}+`,
);

/**
 * Matches up to a place where a text may be cut: the ids of both parts, one behind the other, are those of the whole. No piece of
 * any pattern above reaches across such a place, and none before it depends on what comes after. Special tokens have no such
 * place inside.
 */
export const CUT: RegExp = new RegExp(
  [
    String.raw`[\p{L}\p{N}](?=${SPACE})`, // before white space that follows a word
    String.raw`${NO_SPACE}(?=[^${NO_SPACE}\r\n])`, // or anything else, unless it takes the lines' ends behind it along
    String.raw`${NO_SPACE}\r?\n(?=[^\p{White_Space}/])`, // behind a line's end with no other white space beside it, nor o200k's slash
    // Before a symbol that follows a word, for scripts without spaces; not ASCII's, with which special tokens are written.
    String.raw`\p{L}(?=[^\x00-\x7f\p{White_Space}\p{L}\p{N}\p{M}])`,
  ].join("|"),
  "u",
);
