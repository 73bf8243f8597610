/* Any bytes as a file of prompts, one object a line: requests that ended with a reason, or have ids that the model has
 * and that fit; and each can be printed. */
#include <stdint.h>
#include <stdlib.h>

#include "bench/decoder/requests.h"

static void check(const struct request *r, FILE *null) {
    struct error error;
    if (r->stop ? request_print(r, NULL, null, &error) : r->prompt_count < 1 || r->prompt_count > 50) abort();
    for (int i = 0; !r->stop && i < r->prompt_count; i++)
        if (r->prompt[i] < 0 || r->prompt[i] >= 100) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t count) {
    static const struct requests_rules rules = {.vocab = 100, .max_tokens = 7};
    struct requests requests;
    struct error error;
    FILE *null = fopen("/dev/null", "w");
    if (!null) abort();
    if (!requests_parse("prompts.jsonl", (const char *)bytes, count, &rules, &requests, &error)) {
        if (requests_fit(&requests, 50, 80, &error)) abort();
        for (int i = 0; i < requests.count; i++) check(&requests.list[i], null);
    }
    requests_free(&requests);
    fclose(null);
    return 0;
}
