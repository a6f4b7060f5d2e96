"""Word senses: the same word in different senses, so that the word itself explains nothing."""
