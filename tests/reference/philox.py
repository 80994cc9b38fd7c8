# SPDX-License-Identifier: BSD-3-Clause
"""Philox4x32-10 one counter at a time, as Salmon et al. 2011 write it, and the order in which its words are used."""

_LAST_32 = 0xFFFFFFFF


def philox(counter: int, seed: int) -> tuple[int, int, int, int]:
    """Returns the four words of a counter."""
    c = [counter & _LAST_32, counter >> 32, 0, 0]
    key = [seed & _LAST_32, seed >> 32 & _LAST_32]
    for _ in range(10):
        a, b = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(b >> 32) ^ c[1] ^ key[0], b & _LAST_32, (a >> 32) ^ c[3] ^ key[1], a & _LAST_32]
        key = [key[0] + 0x9E3779B9 & _LAST_32, key[1] + 0xBB67AE85 & _LAST_32]
    return c[0], c[1], c[2], c[3]


def uniform(i: int, seed: int) -> float:
    """Returns number i of the sequence: of 32 neighbours, number 8·w + lane is word w of the lane's counter."""
    group, place = divmod(i, 32)
    word, lane = divmod(place, 8)
    return (philox(8 * group + lane, seed)[word] >> 8) / 2**24
