/** Text to token ids and back: what training and sampling need to know of a vocabulary. */
export interface Tokenizer {
  /** How many different tokens there are; ids are 0 to vocabSize − 1. */
  readonly vocabSize: number;
  /**
   * @returns one id a token
   * @throws {DataError} when the text has something that no token stands for
   */
  encode(text: string): Int32Array<ArrayBuffer>;
  /** @throws {DataError} when an id is outside the vocabulary */
  decode(ids: ArrayLike<number>): string;
  /** The contents of a run's `vocabulary.json`. */
  toJSON(): unknown;
}
