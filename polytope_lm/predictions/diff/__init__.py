"""Two models of one architecture on the same tokens: which bits of their codes differ."""
