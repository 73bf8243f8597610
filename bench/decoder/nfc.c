#include "bench/decoder/nfc.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

/* The most code points that one decomposes into. */
enum { MOST_PARTS = 18 };

static int combining_class(utf8proc_int32_t character) {
    return utf8proc_get_property(character)->combining_class;
}

/* Canonical decomposition, not yet ordered; the number of code points, -1 without memory. */
static ptrdiff_t decompose(const char *text, size_t bytes, utf8proc_int32_t **points) {
    size_t count = 0, room = bytes + MOST_PARTS;
    *points = malloc(room * sizeof **points);
    for (size_t i = 0; *points && i < bytes;) {
        utf8proc_int32_t character;
        utf8proc_ssize_t step =
            utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(bytes - i), &character);
        if (room - count < MOST_PARTS) {
            utf8proc_int32_t *larger = realloc(*points, (room *= 2) * sizeof **points);
            if (!larger) free(*points);
            *points = larger;
            if (!larger) break;
        }
        count += (size_t)utf8proc_decompose_char(character, *points + count, (utf8proc_ssize_t)(room - count),
                                                 UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, NULL);
        i += (size_t)step;
    }
    return *points ? (ptrdiff_t)count : -1;
}

/* Sorts a run of combining marks by class and keeps the order within one, by counting: utf8proc's own
 * exchange sort takes quadratic time over a run, and a text can be one run. */
static void order_run(utf8proc_int32_t *run, size_t count, utf8proc_int32_t *scratch) {
    size_t start[257] = {0};
    memcpy(scratch, run, count * sizeof *run);
    for (size_t i = 0; i < count; i++) start[combining_class(scratch[i]) + 1]++;
    for (int i = 0; i < 256; i++) start[i + 1] += start[i];
    for (size_t i = 0; i < count; i++) run[start[combining_class(scratch[i])]++] = scratch[i];
}

static void order(utf8proc_int32_t *points, size_t count, utf8proc_int32_t *scratch) {
    for (size_t i = 0, end; i < count; i = end + 1) {
        for (end = i; end < count && combining_class(points[end]);) end++;
        if (end - i > 1) order_run(points + i, end - i, scratch);
    }
}

char *nfc_normalize(const char *text, size_t bytes, size_t *count) {
    utf8proc_int32_t *points;
    ptrdiff_t decomposed = decompose(text, bytes, &points);
    if (decomposed < 0) return NULL;
    utf8proc_int32_t *scratch = malloc(((size_t)decomposed + 1) * sizeof *scratch);
    char *result = malloc(4 * (size_t)decomposed + 1), *end = result;
    if (scratch && result) {
        order(points, (size_t)decomposed, scratch);
        utf8proc_ssize_t composed = utf8proc_normalize_utf32(points, decomposed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        for (utf8proc_ssize_t i = 0; i < composed; i++) end += utf8proc_encode_char(points[i], (utf8proc_uint8_t *)end);
        *end = 0;
        *count = (size_t)(end - result);
    } else {
        free(result);
        result = NULL;
    }
    free(scratch);
    free(points);
    return result;
}
