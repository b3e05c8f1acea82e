/**
 * The parts of TypeDoc's types that are used here. For TypeDoc's own types, `deno check` would have to fetch the
 * package.
 */

/** A documented symbol, module or page. */
export interface Reflection {
  name: string;
  readonly parent?: Reflection;
  isProject(): boolean;
  isDocument(): boolean;
}
export interface Signature extends Reflection {
  readonly parent?: Reflection & { readonly signatures?: readonly Signature[] };
  readonly comment?: { blockTags: { readonly tag: string; name?: string }[] };
  readonly parameters?: readonly Parameter[];
  sources?: { readonly fileName: string }[];
}
export interface Parameter extends Reflection {
  readonly type?: { readonly declaration?: { readonly children?: readonly Reflection[] } };
}
export interface Document extends Reflection {
  readonly content: readonly Part[];
}
export interface Project extends Reflection {
  readonly children: readonly Reflection[];
  readonly documents: readonly Document[];
  readonly readme: readonly Part[];
  readonly files: { resolve(target: unknown, project: Project): Reflection | string | undefined };
  getReflectionsByKind(kind: number): readonly Signature[];
}
/** A piece of a page: text, code, or a link to a file. */
export interface Part {
  kind: string;
  text: string;
  readonly target?: unknown;
}
