"""Where the stages meet: find cases, read, prepare, predict, rules, restore, write."""
