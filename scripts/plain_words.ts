/// <reference lib="deno.unstable" />
/**
 * Forms of words that make a reader translate, and a plugin for `deno lint` that finds them in comments and strings. A test
 * looks for them in pages, shaders and Python (tests/docs/plain_words_test.ts). Words in `backticks` are code and not read.
 *
 * Where a form is right after all, `// deno-lint-ignore plain-words/words` above the line is the exception.
 *
 * @module
 */

/** A form, and what to write instead. */
export const FORMS: readonly (readonly [form: RegExp, instead: string])[] = [
  // A genitive in front of its noun.
  [
    /(?:^|[.;:!?]\s+)Of (?!course)/,
    "put the subject first: 'each of the k groups has …', not 'Of k groups each has …'",
  ],
  // A noun left out.
  [/\bthe others\b/i, "name the noun: 'the other threads'"],
  [/(?<!\ball )\bthe same(?=[.,;:!?)]|$)/i, "name the noun: 'the same bits'"],
  [
    /\bof those\b|\bthose (?=(?:that|which|who|whose|of|in|with|are|is|for|from|at|on|by|below|above|to)\b)/i,
    "name the noun: 'the scores that …', not 'those …'",
  ],
  [/\bthe ones?\b(?= (?:that|which|of|with|in|from)\b)/i, "name the noun"],
  [/\bso many\b|\bfor so long\b/i, "say the number or the time: 'k of them', 'until the first commit'"],
  [
    /\bwhere (?:there|it|they) (?:is|are|was|were) (?:none|no|one)\b/i,
    "'if there is none', or better what happens then",
  ],
  [/\b(?:that|which|it|they|this|id|ids) (?:is|are|was|were) none\b/i, "'is not a valid …'"],
  [/(?<!\bthere )\b(?:is|are|was|were) no (?!longer\b|more than\b|less than\b)/i, "'is not a valid …', 'is not a …'"],
  // Words that mean something else, or that technical English does not use.
  [/\bfore(?:see|sees|saw|seen|seeing)\b/i, "'estimate' or 'predict'"],
  [/\btold\b/i, "say who does what: 'the caller passes', 'prints'"],
  [/\bkept\b/i, "'stored', 'saved', 'held', 'retained'"],
  [/\bbehind\b(?! a (?:reverse )?proxy)/i, "'after', 'following'"],
  [/\b(?:lie|lies|lay|lain)\b/i, "'is stored', 'is in', 'is at'"],
  [/\b(?:has|have|had) it\b(?=[.,;:!?)]|$)/i, "'as in nanoGPT', not 'as nanoGPT has it'"],
  [/\b(?:nobody|somebody|one who|who is)\b/i, "name who: 'the caller', 'the user'"],
  [
    /\b(?:anew|till|whence|thence|whereof|thereof|therein|wherein|naught|nought|likeliest)\b/i,
    "use the plain word: 'again', 'until', 'from which', 'most likely'",
  ],
  [/\b(?:and|or) its like\b/i, "'and similar …'"],
];

/** What a text has of the forms: the words found and what to write instead. */
export function* found(text: string): Generator<{ at: number; words: string; instead: string }> {
  const read = text.replace(/`[^`\n]*`/g, (code) => "_".repeat(code.length));
  for (const [form, instead] of FORMS) {
    for (const match of read.matchAll(new RegExp(form, form.flags + "g"))) {
      yield { at: match.index, words: match[0].trim(), instead };
    }
  }
}

/** Messages and help have three words or more; what has fewer is a name. */
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
            // A sentence may go on in the next line: of JSDoc, where it begins with a star, or of comments with two slashes.
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
