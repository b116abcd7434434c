"""Where the steps of a case meet: find, read, locate, plan, place, tiles, labels, rules, write."""
