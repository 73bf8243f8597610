/* Any bytes as tokenizer.json, and any bytes as a text: errors, or ids that all have a token. A zero byte
 * parts the two. Without one, the text goes through a small tokenizer that is known to be good. */
#include "tests/fuzz/fuzz_dir.h"

#include <string.h>

#include "bench/decoder/tokenizer.h"

static const char good[] =
    "{\"normalizer\": {\"type\": \"NFC\"}, \"pre_tokenizer\": {\"type\": \"ByteLevel\", \"add_prefix_space\": false}, "
    "\"added_tokens\": [{\"id\": 9, \"content\": \"ab\"}], \"model\": {\"type\": \"BPE\", \"vocab\": {\"a\": 0, \"b\": "
    "1, "
    "\"\\u0120\": 2, \"aa\": 3, \"\\u0120a\": 4, \"aaa\": 5, \"\\u00cc\": 6, \"\\u0123\": 7, \"\\u00c3\": 8}, "
    "\"merges\": "
    "[\"a a\", \"\\u0120 a\", [\"aa\", \"a\"]]}}";

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    struct tokenizer *tokenizer;
    struct error error;
    int *ids, id_count;
    const uint8_t *zero = count ? memchr(bytes, 0, count) : NULL;
    const uint8_t *text = zero ? zero + 1 : bytes;
    size_t text_bytes = count - (size_t)(text - bytes), token_bytes;
    if (zero)
        fuzz_write("tokenizer.json", bytes, (size_t)(zero - bytes));
    else
        fuzz_write("tokenizer.json", (const uint8_t *)good, sizeof good - 1);
    if (tokenizer_open(fuzz_dir(), &tokenizer, &error)) return 0;
    if (!tokenizer_encode(tokenizer, (const char *)text, text_bytes, &ids, &id_count, &error)) {
        for (int i = 0; i < id_count; i++)
            if (!tokenizer_token(tokenizer, ids[i], &token_bytes)) abort();
        free(ids);
    }
    tokenizer_close(tokenizer);
    return 0;
}
