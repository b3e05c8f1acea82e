/**
 * Patterns by which byte-pair tokenizers cut a text into pieces before they merge bytes. They are tiktoken's patterns
 * (tiktoken_ext/openai_public.py), rewritten so that JavaScript's regular expressions find the same pieces. White space
 * is `\p{White_Space}`, because JavaScript's `\s` includes U+FEFF and lacks U+0085. In the parts of tiktoken's patterns
 * that ignore case, `s` also matches U+017F, the long s. tiktoken's possessive quantifiers, which JavaScript lacks, only
 * save time and do not change the matches.
 */

const SPACE = String.raw`\p{White_Space}`, NO_SPACE = String.raw`\P{White_Space}`;
const SYMBOLS = String.raw` ?[^\p{White_Space}\p{L}\p{N}]+`;
const CONTRACTION = `'(?:[sSſdDmMtT]|[lL][lL]|[vV][eE]|[rR][eE])`;
/** White space that is not directly before a word. The last white-space character before a word belongs to the word. */
const SPACES = `${SPACE}+(?!${NO_SPACE})`;

function pattern(...alternatives: string[]): RegExp {
  return new RegExp(alternatives.join("|"), "gu");
}

/** Pattern of GPT-2 (vocabulary r50k). */
export const R50K: RegExp = pattern(
  "'(?:[sdmt]|ll|ve|re)",
  String.raw` ?\p{L}+`,
  String.raw` ?\p{N}+`,
  SYMBOLS,
  SPACES,
  `${SPACE}+`,
);

/** Pattern of GPT-3.5 and GPT-4. */
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

/** Pattern of GPT-4o. */
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
 * Matches the text directly before a position where a text can be cut: encoding both parts gives the same ids as
 * encoding the whole text. No piece of any pattern above extends across such a position, and no piece before it depends
 * on the text after it. OpenAI's special tokens contain no such position.
 */
export const CUT: RegExp = new RegExp(
  [
    String.raw`[\p{L}\p{N}](?=${SPACE})`, // the position between a letter or digit and white space
    // The position between any other character and white space. Line ends are excluded, because the character's piece may
    // include them.
    String.raw`${NO_SPACE}(?=[^${NO_SPACE}\r\n])`,
    // The position after a line end that has no other white space around it. A slash after it is excluded, because o200k's
    // pieces may include it.
    String.raw`${NO_SPACE}\r?\n(?=[^\p{White_Space}/])`,
    // The position between a letter and a symbol, for scripts without spaces. ASCII symbols are excluded, because special
    // tokens contain them.
    String.raw`\p{L}(?=[^\x00-\x7f\p{White_Space}\p{L}\p{N}\p{M}])`,
  ].join("|"),
  "u",
);
