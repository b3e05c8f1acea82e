/** Makes `/openapi.json` from the same declarations that validate requests. OpenAPI 3.1 uses JSON Schema. */
import type { Fields, Schema } from "./fields.ts";
import type { Route } from "./routes.ts";

const ERROR: Schema = {
  type: "object",
  required: ["error"],
  properties: {
    error: {
      type: "object",
      required: ["message", "type", "param", "code"],
      properties: {
        ...{ message: { type: "string" }, type: { type: "string" } },
        ...{ param: { type: ["string", "null"] }, code: { type: ["string", "null"] } },
      },
    },
  },
};
const json = (schema: Schema): Schema => ({ "application/json": { schema } });

/** Returns the OpenAPI document that describes the routes. */
export function openapi(routes: readonly Route[]): Schema {
  const paths: Record<string, Record<string, unknown>> = {};
  for (const route of routes) (paths[route.path] ??= {})[route.method.toLowerCase()] = operation(route);
  return {
    openapi: "3.1.0",
    info: {
      title: "nanogpt-ts",
      version: "1",
      description:
        "OpenAI's API for your own models. A field with `x-nanogpt` is ignored, or refused with an error that names it.",
    },
    paths,
    components: { securitySchemes: { key: { type: "http", scheme: "bearer" } } },
  };
}

function operation({ path, summary, body, form, query = {}, answers, audience }: Route): Schema {
  const names = [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => name);
  const streams = (body?.schema.properties as Fields | undefined)?.stream !== undefined;
  const content = typeof answers === "string" ? { [answers]: {} } : json(answers);
  return {
    summary,
    ...audience !== "open" && { security: audience === "local" ? [{}, { key: [] }] : [{ key: [] }] },
    parameters: [
      ...names.map((name) => ({ name, in: "path", required: true, schema: { type: "string", minLength: 1 } })),
      ...Object.entries(query).map(([name, { schema }]) => ({ name, in: "query", schema })),
    ],
    ...body && { requestBody: { required: true, content: json(body.schema) } },
    ...form && { requestBody: { required: true, content: { "multipart/form-data": { schema: form } } } },
    responses: {
      200: { description: "Done", content: { ...content, ...streams && { "text/event-stream": {} } } },
      default: { description: "An error", content: json(ERROR) },
    },
  };
}
