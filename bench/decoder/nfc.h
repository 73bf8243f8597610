/* Unicode's normalization form C in linear time. */
#ifndef TILEBOOK_DECODER_NFC_H
#define TILEBOOK_DECODER_NFC_H

#include <stddef.h>

/* text: valid UTF-8. The result is NUL-terminated, *count bytes before that; the caller frees it. NULL
 * without memory. */
char *nfc_normalize(const char *text, size_t bytes, size_t *count);

#endif
