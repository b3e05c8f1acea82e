/** Code that sends the same request as the page: a command, or a program in Python or TypeScript. */
import type { Asked } from "./api.ts";

export type Language = "curl" | "python" | "typescript";

/** For each path: the function of OpenAI's clients that sends a request to it. */
const CALLS: Readonly<Record<string, string>> = {
  "/v1/completions": "completions.create",
  "/v1/chat/completions": "chat.completions.create",
};

/**
 * Returns code that sends a request.
 *
 * @param origin the server's origin, such as `http://127.0.0.1:8000`
 * @param keyed whether the code reads a key from an environment variable
 */
export function snippet({ path, body }: Asked, language: Language, origin: string, keyed: boolean): string {
  if (language === "curl") {
    const key = keyed ? ` \\\n  -H "Authorization: Bearer $NANOGPT_KEY"` : "", quoted = JSON.stringify(body, null, 2);
    const silent = body.stream ? "-N " : "";
    return `curl ${silent}${origin}${path}${key} \\\n  -H "Content-Type: application/json" \\\n  -d '${
      quoted.replaceAll("'", "'\\''")
    }'`;
  }
  const call = CALLS[path] ?? "post", stream = body.stream === true;
  const show = path.includes("chat") ? "choices[0].delta.content" : "choices[0].text";
  const whole = show.replace("delta", "message");
  if (language === "python") {
    const key = keyed ? `os.environ["NANOGPT_KEY"]` : `"none"`;
    const { known, extra } = divided(body),
      pairs = Object.entries(known).map(([name, value]) => `    ${name}=${python(value)},\n`);
    if (Object.keys(extra).length > 0) pairs.push(`    extra_body=${python(extra)},\n`);
    const end = stream
      ? `for part in answer:\n    if part.choices:\n        print(part.${show} or "", end="", flush=True)\n`
      : `print(answer.${whole})\n`;
    return `${
      keyed ? "import os\n" : ""
    }from openai import OpenAI\n\nclient = OpenAI(base_url="${origin}/v1", api_key=${key})\n` +
      `answer = client.${call}(\n${pairs.join("")})\n${end}`;
  }
  const key = keyed ? `process.env.NANOGPT_KEY` : `"none"`;
  const end = stream
    ? `for await (const part of answer) console.log(part.${show.replace("[0]", "[0]?")});\n`
    : `console.log(answer.${whole});\n`;
  return `import OpenAI from "openai";\n\nconst client = new OpenAI({ baseURL: "${origin}/v1", apiKey: ${key} });\n` +
    `const answer = await client.${call}(${JSON.stringify(body, null, 2)});\n${end}`;
}

/** Separates the fields that OpenAI's Python client does not know, which go into `extra_body`. */
function divided(body: Readonly<Record<string, unknown>>) {
  const isExtra = ([name]: [string, unknown]) => name === "top_k" || name === "min_p";
  const all = Object.entries(body);
  return {
    known: Object.fromEntries(all.filter((pair) => !isExtra(pair))),
    extra: Object.fromEntries(all.filter(isExtra)),
  };
}

/** Writes a JSON value as a Python literal. */
export function python(value: unknown): string {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") {
    return `{${Object.entries(value).map(([name, value]) => `${python(name)}: ${python(value)}`).join(", ")}}`;
  }
  return JSON.stringify(value);
}
