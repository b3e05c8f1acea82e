/**
 * Layers, named as in `torch.nn`. All layers and the model itself extend {@linkcode Module}, whose field names become
 * the names of the parameters in a checkpoint.
 *
 * @module
 */
export * from "./dropout.ts";
export * from "./embedding.ts";
export * from "./layer_norm.ts";
export * from "./linear.ts";
export { evaluating, Module, type ModuleOptions, parameter, type ParameterOptions } from "./module.ts";
