"""The ledger of live suffixes against a plain comparison of token lists."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kdaudit.inference.prefixes import SuffixLedger


@given(st.data())
def test_matched_is_the_common_start(data: st.DataObject) -> None:
    prefixes = data.draw(st.lists(st.sampled_from([(1, 2), (1, 3), (2, 2)]), min_size=1, max_size=12))
    suffix = st.lists(st.integers(0, 2), min_size=4, max_size=4)
    suffixes = [data.draw(suffix) for _ in prefixes]
    continuation = {prefix: data.draw(suffix) for prefix in sorted(set(prefixes))}
    ledger = SuffixLedger(np.array(prefixes, np.int32), np.array(suffixes, np.int32))
    assert sorted(map(tuple, ledger.prefixes.tolist())) == sorted(set(prefixes))
    for row, prefix in enumerate(map(tuple, ledger.prefixes.tolist())):
        for token in continuation[prefix]:
            if not ledger.advance(row, [token]):
                break
    expected = []
    for prefix, own in zip(prefixes, suffixes, strict=True):
        count = 0
        while count < 4 and continuation[prefix][count] == own[count]:
            count += 1
        expected.append(count)
    assert ledger.matched.tolist() == expected
