"""Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011, Parallel random numbers: as easy as 1, 2, 3), and dropout's masks."""

import numpy as np

MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
WEYL = 0x9E3779B9, 0xBB67AE85
LOW = np.uint64(0xFFFFFFFF)


def philox4x32(counters, key):
    """counters (n, 4) and a key of two words -> (n, 4) words."""
    c0, c1, c2, c3 = (counters[:, i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    for _ in range(10):
        product0, product1 = c0 * MULTIPLIERS[0], c2 * MULTIPLIERS[1]
        high0, high1 = product0 >> np.uint64(32), product1 >> np.uint64(32)
        c0, c1, c2, c3 = high1 ^ c1 ^ np.uint64(k0), product1 & LOW, high0 ^ c3 ^ np.uint64(k1), product0 & LOW
        k0, k1 = (k0 + WEYL[0]) & 0xFFFFFFFF, (k1 + WEYL[1]) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32)


def dropout_mask(n, p, seed, offset, stream):
    """The factor of each of n elements: 0, or 1 / (1 - p). Element i takes word i % 4 of counter i // 4."""
    blocks = (n + 3) // 4
    counters = np.zeros((blocks, 4), np.uint64)
    counters[:, 0] = np.arange(blocks)
    counters[:, 1], counters[:, 2] = stream, offset
    words = philox4x32(counters, (seed, 0)).reshape(-1)[:n]
    uniform = (words >> np.uint32(8)).astype(np.float64) * 2.0**-24
    return np.where(uniform >= p, 1 / (1 - p), 0.0)


# The known answers published with the authors' Random123 library.
ONES = 0xFFFFFFFF
assert [*philox4x32(np.zeros((1, 4)), (0, 0))[0]] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
assert [*philox4x32(np.full((1, 4), ONES), (ONES, ONES))[0]] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
