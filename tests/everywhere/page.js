/** The program of a page: the bundlers' entry point. */
import { train } from "./losses.js";

train(10, 1).then(({ losses }) => globalThis.losses = losses, (error) => globalThis.losses = String(error?.stack));
