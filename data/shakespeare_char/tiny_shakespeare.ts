import type { KnownFile } from "../../src/data/download.ts";

/** The text that nanoGPT's `shakespeare_char` and `shakespeare` train on: 40,000 lines from the plays. */
export const tinyShakespeare: KnownFile = {
  name: "tinyshakespeare.txt",
  url: "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
  bytes: 1115394,
  sha256: "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
};
