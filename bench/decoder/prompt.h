/* What a user gives to begin with, as token ids. */
#ifndef TILEBOOK_DECODER_PROMPT_H
#define TILEBOOK_DECODER_PROMPT_H

#include "bench/decoder/tokenizer.h"

/* "1,2,3": ids below `vocab`. The caller frees *ids. */
int prompt_ids(const char *text, int vocab, int **ids, int *count, struct error *error);

/* The bytes of a file, or of standard input for "-"; the caller frees. NULL on failure. */
char *prompt_read(const char *path, size_t *bytes, struct error *error);

/* The ids of a text; with `chat`, of a user's turn in Qwen2's chat format and the beginning of the answer. The caller
 * frees *ids. Errors: invalid UTF-8; with `chat`, a tokenizer without its tokens. */
int prompt_encode(const struct tokenizer *tokenizer, const char *text, size_t bytes, bool chat, int **ids, int *count,
                  struct error *error);

#endif
