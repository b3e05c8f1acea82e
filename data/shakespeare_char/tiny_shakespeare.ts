import type { KnownFile } from "../../src/data/download.ts";

/**
 * Tiny Shakespeare, 40,000 lines from the plays, the text of nanoGPT's datasets `shakespeare_char` and `shakespeare`.
 */
export const tinyShakespeare: KnownFile = {
  name: "tinyshakespeare.txt",
  url: "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
  bytes: 1115394,
  sha256: "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
};
