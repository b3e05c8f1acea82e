/** The values of a pickle in JavaScript. See pickle.ts. */

/** A key of a dict. */
export type PickleKey = string | number | bigint | boolean | null;
/** A dict. */
export type PickleDict = Map<PickleKey, PickleValue>;
/** A value read from a pickle. */
export type PickleValue =
  | PickleKey
  | Uint8Array
  | readonly PickleValue[]
  | PickleDict
  | Set<PickleValue>
  | PickleObject;

/** Base class of the objects that the caller of `readPickle` creates for a name, a call or a persistent id. */
export abstract class PickleObject {
  /** @internal */ declare protected readonly kind: "pickle object"; // makes the type nominal
}

/** A name that a pickle may use. */
export class PickleGlobal extends PickleObject {
  /** @param call called when the pickle calls the name; without it, the pickle may use the name but not call it */
  constructor(readonly name: string, readonly call?: (args: readonly PickleValue[]) => PickleValue) {
    super();
  }
}

/** Options for reading a pickle. */
export interface PickleOptions {
  /** The name of the file, and of the record in it, for messages. */
  readonly where: string;
  /** Names that the pickle may use besides OrderedDict, set and frozenset. */
  readonly globals?: Iterable<PickleGlobal>;
  /** Returns the object for a persistent id. Without it, persistent ids are an error. */
  readonly persistentLoad?: (id: PickleValue) => PickleValue;
}
