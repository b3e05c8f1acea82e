/// <reference lib="deno.unstable" />
/**
 * A list of forms of words that are hard to read, and a plugin for `deno lint` that finds them in comments and strings.
 * A test finds them in pages, shaders and Python (tests/docs/plain_words_test.ts). Words in `backticks` are skipped,
 * because they are code.
 *
 * If a form is right in one place, write `// deno-lint-ignore plain-words/words` above that line.
 *
 * @module
 */

/** The forms, and what to write instead of each. */
const FORMS: readonly (readonly [form: RegExp, instead: string])[] = [
  // A genitive before its noun.
  [
    /(?:^|[.;:!?]\s+)Of (?!course)/g,
    "put the subject first: 'each of the k groups has …', not 'Of k groups each has …'",
  ],
  // A noun that is left out.
  [/\bthe others\b/gi, "name the noun: 'the other threads'"],
  [/(?<!\ball )\bthe same(?=[.,;:!?)]|$)/gi, "name the noun: 'the same bits'"],
  [
    /\bof those\b|\bthose (?=(?:that|which|who|whose|of|in|with|are|is|for|from|at|on|by|below|above|to)\b)/gi,
    "name the noun: 'the scores that …', not 'those …'",
  ],
  [/\bthe ones?\b(?= (?:that|which|of|with|in|from)\b)/gi, "name the noun"],
  [/\bso many\b|\bfor so long\b/gi, "say the number or the time: 'k of them', 'until the first commit'"],
  [
    /\bwhere (?:there|it|they) (?:is|are|was|were) (?:none|no|one)\b/gi,
    "'if there is none', or better what happens then",
  ],
  [/\b(?:that|which|it|they|this|id|ids) (?:is|are|was|were) none\b/gi, "'is not a valid …'"],
  [/(?<!\bthere )\b(?:is|are|was|were) no (?!longer\b|more than\b|less than\b)/gi, "'is not a valid …', 'is not a …'"],
  // Words that mean something else, or that technical English does not use.
  [/\bfore(?:see|sees|saw|seen|seeing)\b/gi, "'estimate' or 'predict'"],
  [/\btold\b/gi, "say who does what: 'the caller passes', 'prints'"],
  [/\bkept\b/gi, "'stored', 'saved', 'held', 'retained'"],
  [/\bbehind\b(?! a (?:reverse )?proxy)/gi, "'after', 'following'"],
  [/\b(?:lie|lies|lay|lain)\b/gi, "'is stored', 'is in', 'is at'"],
  [/\b(?:has|have|had) it\b(?=[.,;:!?)]|$)/gi, "'as in nanoGPT', not 'as nanoGPT has it'"],
  [/\b(?:nobody|somebody|one who|who is)\b/gi, "name who: 'the caller', 'the user'"],
  [
    /\b(?:anew|till|whence|thence|whereof|thereof|therein|wherein|naught|nought|likeliest)\b/gi,
    "use the plain word: 'again', 'until', 'from which', 'most likely'",
  ],
  [/\b(?:and|or) its like\b/gi, "'and similar …'"],
];

/** Finds the forms in a text. Yields the position and the words of each, and what to write instead. */
export function* found(text: string): Generator<{ at: number; words: string; instead: string }> {
  const read = text.replace(/`[^`\n]*`/g, (code) => "_".repeat(code.length));
  for (const [form, instead] of FORMS) {
    for (const match of read.matchAll(form)) {
      yield { at: match.index, words: match[0].trim(), instead };
    }
  }
}

/** Whether a string is a message or help. A string of fewer than three words counts as a name. */
const isProse = (text: string) => /\w+\s+\S+\s+\w+/.test(text);

export default {
  name: "plain-words",
  rules: {
    words: {
      create(context) {
        const report = (range: Deno.lint.Range, text: string) => {
          for (const { words, instead } of found(text)) context.report({ range, message: `"${words}": ${instead}` });
        };
        return {
          Program() {
            // A sentence can continue in the next line, so JSDoc and consecutive // comments are joined into one text.
            let [begin, end, text] = [0, 0, ""];
            const finish = () => {
              for (const part of text.split(/\n\s*\n|\n(?=@|- )/)) {
                report([begin, end], part.replace(/\s*\n\s*/g, " ").trim());
              }
            };
            for (const { type, range, value } of context.sourceCode.getAllComments()) {
              if (type !== "Line" || !/^\n[ \t]*$/.test(context.sourceCode.text.slice(end, range[0]))) {
                finish();
                [begin, text] = [range[0], ""];
              }
              text += `${value.replace(/^\s*\* ?/gm, "").trim()}\n`;
              end = range[1];
            }
            finish();
          },
          Literal(node) {
            if (typeof node.value === "string" && isProse(node.value)) report(node.range, node.value);
          },
          TemplateElement(node) {
            if (isProse(node.cooked)) report(node.range, node.cooked);
          },
        };
      },
    },
  },
} satisfies Deno.lint.Plugin;
