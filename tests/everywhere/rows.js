/** Reads a Parquet file and renders a chat template, both in workers with a bounded heap, and prints the results. */
import { ChatTemplate, readExamples } from "@nanogpt/ts/data";

const [path] = process.argv.slice(2);
try {
  const rows = await Array.fromAsync(readExamples(path, { kinds: ["label"], columns: { text: "name" } }));
  using template = new ChatTemplate(
    "{% for message in messages %}{{ message.role }}: {{ message.content }}{% endfor %}",
  );
  const text = await template.render([{ role: "user", content: "hi" }]);
  console.log(JSON.stringify({ rows: rows.map(({ where: _, ...row }) => row), text }));
} catch (error) {
  console.log(JSON.stringify({ error: error.message }));
}
