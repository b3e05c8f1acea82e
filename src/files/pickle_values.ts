/** What is in a pickle, in JavaScript. See pickle.ts. */

export type PickleKey = string | number | bigint | boolean | null;
/** A dict. */
export type PickleDict = Map<PickleKey, PickleValue>;
/** What reading a pickle gives. */
export type PickleValue =
  | PickleKey
  | Uint8Array
  | readonly PickleValue[]
  | PickleDict
  | Set<PickleValue>
  | PickleObject;

/** What a caller of the reader makes of a name, a call or a persistent id. */
export abstract class PickleObject {
  /** @internal */ declare protected readonly kind: "pickle object"; // so that no other value is taken for one
}

/** A name that a pickle may use. */
export class PickleGlobal extends PickleObject {
  /** @param call what a call of it gives; without, it may be named and not called */
  constructor(readonly name: string, readonly call?: (args: readonly PickleValue[]) => PickleValue) {
    super();
  }
}

export interface PickleOptions {
  /** For messages: the file, and the record in it. */
  readonly where: string;
  /** What the pickle may name besides OrderedDict and set. */
  readonly globals?: Iterable<PickleGlobal>;
  /** What a persistent id stands for; without, there may be none. */
  readonly persistentLoad?: (id: PickleValue) => PickleValue;
}
