"""What a code determines: how much of an MLP's work is left when its input is known by the code alone."""
