/* Bytes of tokens to text: only whole characters come out, as they become whole. */
#ifndef TILEBOOK_DECODER_STREAM_H
#define TILEBOOK_DECODER_STREAM_H

#include <stdio.h>

struct stream {
    FILE *out;  /* gets each piece at once; may be NULL */
    char *text; /* all that came out: valid UTF-8, NUL-terminated; NULL while empty */
    size_t length;
    unsigned char held[4]; /* the beginning of a character */
    int held_count;
    int failed; /* errno of the first piece that was lost: no memory, or `out` could not be written */
};

/* A character that another call may complete is held back; bytes that cannot be UTF-8 become U+FFFD. */
void stream_write(struct stream *stream, const char *bytes, size_t count);
/* No more comes: an incomplete character becomes U+FFFD. */
void stream_end(struct stream *stream);
void stream_free(struct stream *stream);

#endif
