from __future__ import annotations

import paper_readings
import paper_rows
import pytest


@pytest.mark.long
def test_every_row_of_table_4_adds_what_the_paper_says_where_hgcns_have_32_channels_within():
    rows = list(paper_rows.rows())
    names = [row[0] for row in rows]
    assert (names[:2], len(names)) == (["Baseline", "+ only Mamba"], 9)
    for *_, ours, paper in rows:
        assert float(ours) == pytest.approx(float(paper), abs=0.011)  # both are rounded


@pytest.mark.long
def test_the_paper_s_sums_are_nearer_to_the_encoder_s_than_to_the_network_s():
    for _, whole, _, encoder, paper, *_ in paper_rows.rows():
        assert abs(float(encoder) - float(paper)) < 0.2 < abs(float(whole) - float(paper))


def test_the_last_row_of_table_4_is_the_published_network():
    _, blocks, orders, _ = paper_rows.TABLE_4[-1]
    assert paper_rows.parameters(blocks, orders)[0] == 48_878_391


@pytest.mark.long
@pytest.mark.parametrize(("reading", "gated_channels"), [(0, None), (-1, 32)])
def test_a_reading_is_counted_as_the_network_that_has_it(reading, gated_channels):
    baseline = paper_rows.parameters(*paper_rows.TABLE_4[0][1:3])[1]
    for row in paper_readings.ROWS:
        _, blocks, orders, _ = paper_rows.TABLE_4[row]
        built = paper_rows.parameters(blocks, orders, gated_channels)[1] - baseline
        assert paper_readings.added(paper_readings.READINGS[reading], blocks, orders) == built
