/** A page's program: a bundler's entry. */
import { train } from "./losses.js";

train(10, 1).then(({ losses }) => globalThis.losses = losses, (error) => globalThis.losses = String(error?.stack));
