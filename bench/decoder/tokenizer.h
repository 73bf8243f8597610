/* Byte-level BPE as tokenizer.json describes it (Qwen2's: NFC, its regular expression, added tokens). */
#ifndef TILEBOOK_DECODER_TOKENIZER_H
#define TILEBOOK_DECODER_TOKENIZER_H

#include <stdbool.h>
#include <stddef.h>

#include "kernels/error.h"

struct tokenizer;

int tokenizer_open(const char *directory, struct tokenizer **tokenizer, struct error *error);
void tokenizer_close(struct tokenizer *tokenizer);
/* Ids below this may be generated; the model's logits can have more columns. */
int tokenizer_size(const struct tokenizer *tokenizer);
/* text: UTF-8, `bytes` long; invalid UTF-8 is an error that names the offset. Added tokens such as
 * <|im_start|> are recognised in the text, as the tokenizers library does. The caller frees *ids. */
int tokenizer_encode(const struct tokenizer *tokenizer, const char *text, size_t bytes, int **ids, int *count,
                     struct error *error);
/* The bytes of one token (may be part of a character); NULL for an id that is not there. */
const char *tokenizer_token(const struct tokenizer *tokenizer, int id, size_t *bytes);
/* True for added tokens marked special: they are not printed. */
bool tokenizer_special(const struct tokenizer *tokenizer, int id);

#endif
