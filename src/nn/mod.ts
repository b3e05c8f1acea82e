/**
 * Layers: modules with parameters, named as in `torch.nn`. {@linkcode Module} is what all of them are, the model too: its fields
 * name its parameters, as in a checkpoint.
 *
 * @module
 */
export * from "./dropout.ts";
export * from "./embedding.ts";
export * from "./layer_norm.ts";
export * from "./linear.ts";
export { evaluating, Module, type ModuleOptions, parameter, type ParameterOptions } from "./module.ts";
