/** Routes for `/v1/files`: files for fine-tuning, and the result files of jobs. */
import { invalid } from "./errors.ts";
import { fileBytes, LEAST_EXPIRY, MOST_EXPIRY, PURPOSES } from "./files.ts";
import { integer, optional, type Schema, string } from "./fields.ts";
import type { Jobs } from "./jobs.ts";
import { type Route, route } from "./routes.ts";
import type { StoredFile } from "./store.ts";

const file: Schema = {
  type: "object",
  required: ["id", "object", "bytes", "created_at", "filename", "purpose", "status"],
  properties: {
    ...{
      id: { type: "string" },
      object: { const: "file" },
      bytes: { type: "integer" },
      created_at: { type: "integer" },
    },
    ...{ filename: { type: "string" }, purpose: { type: "string" }, status: { const: "processed" } },
    expires_at: { type: ["integer", "null"] },
  },
};

const shown = ({ id, bytes, created, filename, purpose, expires }: StoredFile) => ({
  ...{ id, object: "file", bytes, created_at: created, filename, purpose, status: "processed", status_details: null },
  expires_at: expires,
});

/** Returns the answer to a request for a list. */
export function pageOf<T extends { readonly id: string }>(
  [items, has_more]: readonly [readonly T[], boolean],
): Response {
  const [first, last] = [items[0], items.at(-1)].map((item) => item?.id ?? null);
  return Response.json({ object: "list", data: items, has_more, first_id: first, last_id: last });
}
/** Schema of an answer with a list. */
export const pageSchema = (items: Schema): Schema => ({
  type: "object",
  required: ["object", "data", "has_more"],
  properties: {
    ...{ object: { const: "list" }, data: { type: "array", items }, has_more: { type: "boolean" } },
    ...{ first_id: { type: ["string", "null"] }, last_id: { type: ["string", "null"] } },
  },
});
/** The query's parameters for a list. */
export const pageQuery = (limit: number, most: number) => ({
  after: optional(string({ min: 1, max: 80, about: "The id of the last item that the client has" })),
  limit: optional(integer({ min: 1, max: most }), limit),
});
export interface PageQuery {
  readonly after?: string;
  readonly limit: number;
}

/** Makes the routes for files. All of them need a key, because files belong to keys. */
export function fileRoutes({ files, checkUnused }: Pick<Jobs, "files" | "checkUnused">): readonly Route[] {
  const one = "/v1/files/{file}";
  return [
    route({
      ...{ method: "POST", path: "/v1/files", audience: "key", answers: file },
      summary: "Uploads a file: a form with `file` and `purpose`, in either order",
      form: {
        type: "object",
        required: ["file", "purpose"],
        properties: {
          file: { type: "string", format: "binary", minLength: 1 },
          purpose: { enum: PURPOSES },
          "expires_after[anchor]": { const: "created_at" },
          "expires_after[seconds]": { type: "integer", minimum: LEAST_EXPIRY, maximum: MOST_EXPIRY },
        },
        dependentRequired: {
          "expires_after[anchor]": ["expires_after[seconds]"],
          "expires_after[seconds]": ["expires_after[anchor]"],
        },
        additionalProperties: false,
      },
      answer: async ({ request, key }) => Response.json(shown(await files.upload(request, key!))),
    }),
    route({
      ...{ method: "GET", path: "/v1/files", audience: "key", summary: "Your files", answers: pageSchema(file) },
      query: {
        ...pageQuery(10_000, 10_000),
        order: optional(string({ max: 4, values: ["asc", "desc"] }), "desc"),
        purpose: optional(string({ max: 40 })),
      },
      answer: async ({ key, query }) => {
        const { order, purpose, ...page } = query as unknown as PageQuery & { order: string; purpose?: string };
        const [rows, more] = await files.list(key!, { ...page, ascending: order === "asc" }, purpose);
        return pageOf([rows.map(shown), more]);
      },
    }),
    route({
      ...{ method: "GET", path: one, audience: "key", summary: "A file", answers: file },
      answer: async ({ key, path }) => Response.json(shown(await files.find(path.file, key!))),
    }),
    route({
      ...{ method: "GET", path: `${one}/content`, audience: "key", answers: "application/octet-stream" },
      summary: "A file's bytes",
      answer: async ({ key, path }) => {
        const found = await files.find(path.file, key!);
        return new Response(fileBytes(files.path(found)), {
          headers: { "content-type": "application/octet-stream", "content-length": `${found.bytes}` },
        });
      },
    }),
    route({
      ...{ method: "DELETE", path: one, audience: "key", summary: "Deletes a file" },
      answers: {
        type: "object",
        required: ["id", "object", "deleted"],
        properties: { id: { type: "string" }, object: { const: "file" }, deleted: { const: true } },
      },
      answer: async ({ key, path }) => {
        const found = await files.find(path.file, key!), user = checkUnused(found);
        if (user) throw invalid("file", `The file is in use: the job ${user} needs it`, "file_in_use");
        await files.remove(found);
        return Response.json({ id: found.id, object: "file", deleted: true });
      },
    }),
  ];
}
