"""The kernel's counters of packets that found no network."""

from __future__ import annotations

import os

from flarekit.containers.network import NetworkTries, read_counters

SNMP = """Ip: Forwarding OutNoRoutes
Ip: 2 7
Udp: InDatagrams NoPorts
Udp: 0 3
"""


def test_both_formats_of_the_kernel_are_read():
    found = read_counters(SNMP)
    assert (found["Ip:OutNoRoutes"], found["Udp:NoPorts"]) == (7, 3)
    assert read_counters("Ip6OutNoRoutes   4\nIp6InReceives 9\n")["Ip6OutNoRoutes"] == 4


def test_a_live_process_has_counters_and_one_that_is_over_has_none():
    with NetworkTries(os.getpid()) as tries:
        assert tries.count() >= 0
    with NetworkTries(0) as tries:
        assert tries.count() is None
