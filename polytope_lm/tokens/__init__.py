"""Tokens: what a model reads of a document, which of it is stored, and which label each stored token has.

Rules, all by character offset:

- A token belongs to the span (word, region) with which it has most characters in common, ties to the first; white space
  at the token's start is not counted, unless the token is nothing else. A token with no character of a span has none.
- A word's label goes to the LAST of its tokens (`all_pieces=True`: to all of them); a region's to every token. A word
  inside a token that belongs to another word has no token, hence no row.
- Byte-level tokens that are parts of one character (an emoji's four bytes) all have that character's offsets: each has
  the whole character in common with a span, and the last of them is the one that stands for
  the word's end.
- What looks like a special token in a document (`<|endoftext|>`) is text and is tokenised as text. Where a vocabulary
  makes it the special token all the same, it is read and never stored.
- Special tokens that the tokenizer adds are read, never stored. An unknown-word token stands for text and is stored.
"""
