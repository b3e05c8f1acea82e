/** Routes for `/v1/models`. */
import type { ServedModel } from "./engine_api.ts";
import type { Schema } from "./fields.ts";
import { modelOf, type Route, route } from "./routes.ts";

const model: Schema = {
  type: "object",
  required: ["id", "object", "created", "owned_by"],
  properties: {
    ...{
      id: { type: "string" },
      object: { const: "model" },
      created: { type: "integer" },
      owned_by: { type: "string" },
    },
    context_length: { type: "integer", description: "Not in OpenAI's API." },
    vocab_size: { type: "integer", description: "Not in OpenAI's API." },
    loaded: { type: "boolean", description: "Not in OpenAI's API: whether its weights are in memory." },
    chat: { type: "boolean", description: "Not in OpenAI's API: whether it has a chat template." },
  },
};

const shown = ({ id, created, ownedBy, blockSize, vocabSize, loaded, template }: ServedModel) => ({
  ...{ id, object: "model", created, owned_by: ownedBy, context_length: blockSize, vocab_size: vocabSize, loaded },
  chat: template !== undefined,
});

export const modelRoutes: readonly Route[] = [
  route({
    ...{ method: "GET", path: "/v1/models", audience: "local", summary: "The served models" },
    answers: {
      type: "object",
      required: ["object", "data"],
      properties: { object: { const: "list" }, data: { type: "array", items: model } },
    },
    answer: ({ served, key }) => Response.json({ object: "list", data: served.engine.models(key).map(shown) }),
  }),
  route({
    ...{ method: "GET", path: "/v1/models/{model}", audience: "local", summary: "A model", answers: model },
    answer: (call) => Response.json(shown(modelOf(call, call.path.model))),
  }),
];
