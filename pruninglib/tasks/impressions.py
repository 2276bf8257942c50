"""A log of advertisements shown, drawn from chances that are known.

It is drawn each time that it is asked for, in a tenth of a second, so no file of it is kept. Only
whole numbers are drawn and compared, from the raw stream of PCG64, which NumPy promises never to
change: the log is the same on every platform, bit for bit.
"""

from typing import NamedTuple

import numpy as np

DAYS, A_DAY = 20, 5_000  # impressions
USERS, ADS, SITES, REGIONS, TOPICS = 3_000, 1_200, 600, 20, 10
AT_ONE = 64  # even odds; four steps more double them
STEPS = np.array([16384, 19484, 23170, 27554])  # 2^14 times the first four powers of the step
BY_HOUR = [-2, -3, -3, -3, -2, -2, -1, 0, 1, 1, 0, 0, 1, 1, 0, 0, 0, 1, 2, 3, 3, 3, 2, 0]


class Log(NamedTuple):
    """One row an impression, in the order of time; whole numbers but for the last."""

    day: np.ndarray  # (n,) from 0
    hour: np.ndarray  # (n,) 0..23
    user: np.ndarray  # (n,)
    ad: np.ndarray  # (n,)
    site: np.ndarray  # (n,)
    region: np.ndarray  # (n,): of the user
    topics: np.ndarray  # (n, 2): of the ad, not the same twice
    click: np.ndarray  # (n,) 0 or 1
    chance: np.ndarray  # (n,) in (0, 1): that of a click, which nobody could know


def impressions(seed: int = 16) -> Log:
    """100,000 impressions in 20 days, and who clicked.

    Few users, ads and sites are in most of the impressions. Ads live for 6 to 30 days, and half of
    them begin after the first day. The odds of a click are a product: of the user, the ad, the
    site, the hour, each word of the ad, how much the user's region likes the ad's topics, and
    whether the site is about it. Every factor is a power of the fourth root of two.
    """
    raw = np.random.PCG64(seed).random_raw

    def below(n, *shape: int) -> np.ndarray:
        return (raw(shape) % np.asarray(n, dtype=np.uint64)).astype(np.int64)

    def effect(most: int, *shape: int) -> np.ndarray:
        return below(most + 1, *shape) + below(most + 1, *shape) - most  # a triangle around 0

    def weights(count: int, head: int) -> np.ndarray:  # in random order
        return 1_000_000 // (head + below(2**62, count).argsort(kind="stable"))

    def drawn(chances: np.ndarray, n: int) -> np.ndarray:
        ends = chances.cumsum()
        return np.searchsorted(ends, below(ends[-1], n), side="right")

    about, topics = below(TOPICS, SITES), below(TOPICS, ADS, 2)
    topics[:, 1] = (topics[:, 0] + 1 + topics[:, 1] % (TOPICS - 1)) % TOPICS
    region, tastes = below(REGIONS, USERS), effect(3, REGIONS, TOPICS)
    of_user, of_ad, of_site = effect(10, USERS), effect(9, ADS), effect(6, SITES)
    of_topic = effect(4, TOPICS)
    begins = np.where(below(2, ADS) == 0, 0, 1 + below(DAYS - 1, ADS))
    ends = begins + 6 + below(25, ADS)
    by_user, by_ad, by_site = weights(USERS, 15), weights(ADS, 15), weights(SITES, 10)

    n = DAYS * A_DAY
    day = np.arange(n) // A_DAY
    hour = np.sort(below(24, DAYS, A_DAY)).ravel()
    user, site = drawn(by_user, n), drawn(by_site, n)
    ad = np.concatenate(
        [drawn(np.where((begins <= d) & (d < ends), by_ad, 0), A_DAY) for d in range(DAYS)]
    )
    step = (
        AT_ONE
        - 15
        + of_user[user]
        + of_ad[ad]
        + of_site[site]
        + np.array(BY_HOUR)[hour]
        + of_topic[topics[ad]].sum(axis=1)
        + 3 * tastes[region[user][:, None], topics[ad]].sum(axis=1)
        + 6 * (about[site][:, None] == topics[ad]).any(axis=1)
    )
    odds, one = STEPS[step % 4] << step // 4, STEPS[0] << AT_ONE // 4
    click = (below(odds + one, n) < odds).astype(np.int64)
    return Log(day, hour, user, ad, site, region[user], topics[ad], click, odds / (odds + one))
