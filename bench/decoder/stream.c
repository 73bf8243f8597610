#include "bench/decoder/stream.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static void fail(struct stream *stream) {
    if (!stream->failed) stream->failed = errno ? errno : EIO;
}

static void emit(struct stream *stream, const char *bytes, size_t count) {
    char *text = realloc(stream->text, stream->length + count + 1);
    if (!text) {
        fail(stream);
        return;
    }
    stream->text = text;
    memcpy(text + stream->length, bytes, count);
    stream->length += count;
    text[stream->length] = 0;
    if (stream->out && (fwrite(bytes, 1, count, stream->out) != count || fflush(stream->out))) fail(stream);
}

/* Bytes of the character that `first` begins; 0 if none begins so. */
static int character_length(unsigned char first) {
    if (first < 0x80) return 1;
    if (first >= 0xc2 && first <= 0xdf) return 2;
    if (first >= 0xe0 && first <= 0xef) return 3;
    return first >= 0xf0 && first <= 0xf4 ? 4 : 0;
}

/* Whether `byte` may come second after `first` (Unicode, table 3-7: no overlong form, surrogate or value above
 * 10FFFF). */
static bool second_fits(unsigned char first, unsigned char byte) {
    unsigned char low = first == 0xe0 ? 0xa0 : first == 0xf0 ? 0x90 : 0x80;
    unsigned char high = first == 0xed ? 0x9f : first == 0xf4 ? 0x8f : 0xbf;
    return byte >= low && byte <= high;
}

static bool continues(const struct stream *stream, unsigned char byte) {
    if (stream->held_count == 1) return second_fits(stream->held[0], byte);
    return byte >= 0x80 && byte <= 0xbf;
}

static void replace_held(struct stream *stream) {
    if (stream->held_count) emit(stream, "\xef\xbf\xbd", 3);
    stream->held_count = 0;
}

void stream_write(struct stream *stream, const char *bytes, size_t count) {
    for (size_t i = 0; i < count; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        if (stream->held_count && !continues(stream, byte)) replace_held(stream);
        stream->held[stream->held_count++] = byte;
        int length = character_length(stream->held[0]);
        if (!length) {
            replace_held(stream);
        } else if (stream->held_count == length) {
            emit(stream, (const char *)stream->held, (size_t)length);
            stream->held_count = 0;
        }
    }
}

void stream_end(struct stream *stream) {
    replace_held(stream);
}

void stream_free(struct stream *stream) {
    free(stream->text);
    *stream = (struct stream){0};
}
