/** What a chat is made of, as transformers and OpenAI's API have it. */

/** One turn of a chat. */
export interface Message {
  /** Whose turn it is: `system`, `user`, `assistant`, or what else the template knows. */
  readonly role: string;
  /** What is said. */
  readonly content: string;
  /** What the template reads besides, as `tool_calls`. */
  readonly [more: string]: unknown;
}
